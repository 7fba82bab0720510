import type { Room } from "./rooms.js"

/**
 * The rooms of `src`, from the foot to the top: each folder of `internal`, `testing`, and each public file. A room imports only
 * rooms that stand above it here, and of a folder only its doors.
 */
export const rooms: Readonly<Record<string, Room>> = {
  // 1
  Position: { imports: "" },
  RouterError: { imports: "" },
  Selector: { imports: "" },
  util: {
    imports: "",
    doors: "bounded clock later limits linkedQueue lock metricKey orElse refs restore textCache together"
  },
  // 2
  Health: { imports: "Position" },
  Telemetry: { imports: "util" },
  Token: { imports: "Position RouterError" },
  cluster: { imports: "util", doors: "error ports cluster" },
  validation: { imports: "RouterError", doors: "check didYouMean log printValue" },
  wal: { imports: "Position", doors: "lsnTracker positionSample timeline" },
  // 3
  classifier: {
    imports: "util Telemetry",
    doors: "catalog catalogKnowledge catalogQuery classify ending finding knowledge leaves lookups newNames parser"
  },
  context: { imports: "Position wal", doors: "causalState rules" },
  topology: { imports: "RouterError validation", doors: "dns hosts patroni http" },
  // 4
  RoutingContext: { imports: "util context" },
  SqlClassifier: { imports: "util validation classifier" },
  Topology: { imports: "RouterError topology" },
  driver: {
    imports: "Position RouterError util wal classifier",
    doors: "connection cursor exclusive failure failureAction guard opening pool position refused run start stream"
  },
  // 5
  engine: { imports: "util Health wal driver", doors: "pace password probe sameServer settings" },
  tokens: { imports: "Position util Telemetry Token validation context RoutingContext", doors: "tokens" },
  // 6
  Consistency: { imports: "util context RoutingContext tokens" },
  Engine: { imports: "RouterError Selector util Health wal classifier driver engine" },
  // 7
  EngineGroup: { imports: "Selector Health Engine" },
  config: {
    imports: "RouterError Selector Token validation Topology Consistency",
    doors: "environment groups options engine tokens"
  },
  telemetry: {
    imports: "RouterError util Health Telemetry validation SqlClassifier driver Engine",
    doors: "logOnce metrics outcome statementRun"
  },
  // 8
  RouterConfig: { imports: "RouterError Selector Token validation Topology engine Consistency config" },
  consistency: {
    imports:
      "Position util Telemetry Token validation wal context RoutingContext driver tokens Consistency Engine EngineGroup",
    doors: "causal tokenSource"
  },
  health: {
    imports: "Selector util Health Telemetry validation driver engine Engine EngineGroup telemetry",
    doors: "election monitor serverSet"
  },
  transaction: {
    imports: "RouterError util validation wal classifier context driver Engine telemetry",
    doors: "block hooks lazyBegin work transaction"
  },
  // 9
  discovery: {
    imports: "RouterError util Topology engine Engine telemetry RouterConfig health",
    doors: "memberConfig reconcile refresher"
  },
  routing: {
    imports:
      "RouterError util Telemetry validation wal classifier RoutingContext SqlClassifier driver Consistency Engine EngineGroup telemetry RouterConfig consistency health transaction",
    doors: "commit decide engineOverride router"
  },
  // 10
  session: {
    imports: "RouterError util validation context driver Engine telemetry transaction routing",
    doors: "options session"
  },
  testSession: { imports: "util driver Engine transaction routing", doors: "testConnection" },
  // 11
  client: {
    imports:
      "RouterError util Health wal classifier context RoutingContext SqlClassifier Topology driver engine tokens Engine EngineGroup telemetry RouterConfig consistency health transaction discovery routing session",
    doors: "compose currentContext openSession service transactionRunner"
  },
  // 12
  Session: { imports: "RouterError util validation context RoutingContext transaction session client" },
  doctor: {
    imports:
      "Position RouterError util Health validation wal classifier SqlClassifier Topology driver engine Engine config RouterConfig health discovery client",
    doors: "check cli explain render report"
  },
  http: {
    imports: "Position RouterError util validation context RoutingContext tokens transaction client",
    doors: "body preResponse requestScope tokenTransport"
  },
  status: { imports: "util Health validation SqlClassifier Engine routing client", doors: "journal serve snapshot" },
  // 13
  DbRouter: { imports: "RouterError util RoutingContext Engine RouterConfig health client Session" },
  Doctor: { imports: "RouterError RouterConfig client doctor" },
  HttpSession: { imports: "RouterError util validation context tokens session client Session http" },
  HttpStatus: { imports: "client status" },
  // 14
  bin: { imports: "doctor DbRouter" },
  index: { imports: "DbRouter" },
  testing: { imports: "cluster classifier driver Engine routing testSession client DbRouter" }
}
