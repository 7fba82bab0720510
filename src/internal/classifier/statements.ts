import type { Verdict } from "./finding.js"

/**
 * The statements whose kind follows from their node tag alone. Tags are those of PostgreSQL's parse tree
 * (src/include/nodes/parsenodes.h); one that is not here, and not looked into by analyze.ts, is a write.
 */
const table = (kind: Verdict["kind"], changesSchema: boolean, text: string): ReadonlyArray<[string, Verdict]> =>
  text
    .trim()
    .split("\n")
    .map((line) => {
      const [tag, ...label] = line.trim().split(" ")
      return [tag!, { kind, reason: label.join(" "), changesSchema }]
    })

/** They change something that the catalog snapshot holds. */
const schema = table(
  "write",
  true,
  `
  AlterDomainStmt ALTER DOMAIN
  AlterExtensionContentsStmt ALTER EXTENSION
  AlterExtensionStmt ALTER EXTENSION
  AlterFunctionStmt ALTER FUNCTION
  AlterObjectSchemaStmt ALTER ... SET SCHEMA
  AlterOpFamilyStmt ALTER OPERATOR FAMILY
  AlterOperatorStmt ALTER OPERATOR
  AlterPolicyStmt ALTER POLICY
  AlterTableMoveAllStmt ALTER TABLE
  AlterTableStmt ALTER TABLE
  AlterTypeStmt ALTER TYPE
  CallStmt CALL
  CompositeTypeStmt CREATE TYPE
  CreateCastStmt CREATE CAST
  CreateDomainStmt CREATE DOMAIN
  CreateEnumStmt CREATE TYPE
  CreateExtensionStmt CREATE EXTENSION
  CreateForeignTableStmt CREATE FOREIGN TABLE
  CreateFunctionStmt CREATE FUNCTION
  CreateOpClassStmt CREATE OPERATOR CLASS
  CreateOpFamilyStmt CREATE OPERATOR FAMILY
  CreatePolicyStmt CREATE POLICY
  CreateRangeStmt CREATE TYPE
  CreateSchemaStmt CREATE SCHEMA
  CreateSeqStmt CREATE SEQUENCE
  CreateStmt CREATE TABLE
  CreateTableAsStmt CREATE TABLE AS
  DefineStmt CREATE
  DoStmt DO
  DropOwnedStmt DROP OWNED
  DropStmt DROP
  ImportForeignSchemaStmt IMPORT FOREIGN SCHEMA
  RenameStmt ALTER ... RENAME
  RuleStmt CREATE RULE
  ViewStmt CREATE VIEW
`
)

const writes = table(
  "write",
  false,
  `
  AlterCollationStmt ALTER COLLATION
  AlterDatabaseRefreshCollStmt ALTER DATABASE
  AlterDatabaseSetStmt ALTER DATABASE
  AlterDatabaseStmt ALTER DATABASE
  AlterDefaultPrivilegesStmt ALTER DEFAULT PRIVILEGES
  AlterEnumStmt ALTER TYPE
  AlterEventTrigStmt ALTER EVENT TRIGGER
  AlterFdwStmt ALTER FOREIGN DATA WRAPPER
  AlterForeignServerStmt ALTER SERVER
  AlterObjectDependsStmt ALTER ... DEPENDS ON EXTENSION
  AlterOwnerStmt ALTER ... OWNER
  AlterPublicationStmt ALTER PUBLICATION
  AlterRoleSetStmt ALTER ROLE
  AlterRoleStmt ALTER ROLE
  AlterSeqStmt ALTER SEQUENCE
  AlterStatsStmt ALTER STATISTICS
  AlterSubscriptionStmt ALTER SUBSCRIPTION
  AlterSystemStmt ALTER SYSTEM
  AlterTSConfigurationStmt ALTER TEXT SEARCH CONFIGURATION
  AlterTSDictionaryStmt ALTER TEXT SEARCH DICTIONARY
  AlterTableSpaceOptionsStmt ALTER TABLESPACE
  AlterUserMappingStmt ALTER USER MAPPING
  ClusterStmt CLUSTER
  CommentStmt COMMENT
  CreateAmStmt CREATE ACCESS METHOD
  CreateConversionStmt CREATE CONVERSION
  CreateEventTrigStmt CREATE EVENT TRIGGER
  CreateFdwStmt CREATE FOREIGN DATA WRAPPER
  CreateForeignServerStmt CREATE SERVER
  CreatePLangStmt CREATE LANGUAGE
  CreatePublicationStmt CREATE PUBLICATION
  CreateRoleStmt CREATE ROLE
  CreateStatsStmt CREATE STATISTICS
  CreateSubscriptionStmt CREATE SUBSCRIPTION
  CreateTableSpaceStmt CREATE TABLESPACE
  CreateTransformStmt CREATE TRANSFORM
  CreateTrigStmt CREATE TRIGGER
  CreateUserMappingStmt CREATE USER MAPPING
  CreatedbStmt CREATE DATABASE
  DeleteStmt DELETE
  DropRoleStmt DROP ROLE
  DropSubscriptionStmt DROP SUBSCRIPTION
  DropTableSpaceStmt DROP TABLESPACE
  DropUserMappingStmt DROP USER MAPPING
  DropdbStmt DROP DATABASE
  ExecuteStmt EXECUTE
  GrantRoleStmt GRANT
  GrantStmt GRANT
  IndexStmt CREATE INDEX
  InsertStmt INSERT
  MergeStmt MERGE
  NotifyStmt NOTIFY
  ReassignOwnedStmt REASSIGN OWNED
  RefreshMatViewStmt REFRESH MATERIALIZED VIEW
  ReindexStmt REINDEX
  ReplicaIdentityStmt ALTER TABLE
  SecLabelStmt SECURITY LABEL
  TruncateStmt TRUNCATE
  UpdateStmt UPDATE
  VacuumStmt VACUUM
`
)

const sessions = table(
  "session",
  false,
  `
  CheckPointStmt CHECKPOINT
  ClosePortalStmt CLOSE
  ConstraintsSetStmt SET CONSTRAINTS
  DeallocateStmt DEALLOCATE
  DiscardStmt DISCARD
  FetchStmt FETCH
  ListenStmt LISTEN
  LoadStmt LOAD
  LockStmt LOCK
  PrepareStmt PREPARE
  UnlistenStmt UNLISTEN
  VariableSetStmt SET
`
)

export const byTag: ReadonlyMap<string, Verdict> = new Map([
  ...schema,
  ...writes,
  ...sessions,
  ...table("read", false, "VariableShowStmt SHOW")
])

/** Data-modifying statements, which may hide in a WITH. */
export const dataModifying: ReadonlyMap<string, string> = new Map([
  ["DeleteStmt", "DELETE"],
  ["InsertStmt", "INSERT"],
  ["MergeStmt", "MERGE"],
  ["UpdateStmt", "UPDATE"]
])
