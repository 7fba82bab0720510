/** What runs in the browser. The tests check its types; texts of others become text nodes only. */
export const script: string = String.raw`"use strict";
(() => {
/** How many values a plot has at most, and for how many it has room at first. */
const samples = 90
const room = 30
/** How many decisions and events are shown. */
const shown = 25
const base = location.pathname.replace(/\/?$/, "/")

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id))

/**
 * @param {string} tag
 * @param {string} [className]
 * @param {ReadonlyArray<Node | string>} [children]
 */
const el = (tag, className = "", children = []) => {
  const element = document.createElement(tag)
  if (className !== "") element.className = className
  element.append(...children)
  return element
}

/** @param {string} tag @param {Record<string, string>} attributes @param {ReadonlyArray<Node>} [children] */
const svg = (tag, attributes, children = []) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

/** @param {Node} node @param {string} text */
const say = (node, text) => {
  if (node.textContent !== text) node.textContent = text
}

/** @param {Element} element @param {string} name */
const style = (element, name) => {
  if (element.getAttribute("class") !== name) element.setAttribute("class", name)
}

/**
 * Gives a list one element for each item, and leaves those that it has where they are: what has the focus keeps it.
 * @template T
 * @template {{ readonly root: HTMLElement }} View
 * @param {HTMLElement} list
 * @param {Map<string, View>} views
 * @param {ReadonlyArray<T>} items
 * @param {(item: T) => string} keyOf
 * @param {(item: T) => View} make
 * @param {(view: View, item: T) => void} update
 */
const sync = (list, views, items, keyOf, make, update) => {
  const keys = new Set(items.map(keyOf))
  for (const [key, view] of views) {
    if (keys.has(key)) continue
    view.root.remove()
    views.delete(key)
  }
  items.forEach((item, i) => {
    const key = keyOf(item)
    const view = views.get(key) ?? make(item)
    views.set(key, view)
    update(view, item)
    if (list.children[i] !== view.root) list.insertBefore(view.root, list.children[i] ?? null)
  })
}

/** @param {number} n */
const number = (n) => n.toLocaleString("en-US", { maximumFractionDigits: n < 10 ? 1 : 0 })

/** @param {number} millis */
const duration = (millis) =>
  millis < 1000 ? number(millis) + " ms"
  : millis < 60000 ? number(millis / 1000) + " s"
  : millis < 3600000 ? number(Math.floor(millis / 60000)) + " min"
  : millis < 172800000 ? number(Math.floor(millis / 3600000)) + " h"
  : number(Math.floor(millis / 86400000)) + " days"

/** @param {number} n */
const bytes = (n) =>
  n < 1024 ? number(n) + " B" : n < 1048576 ? number(n / 1024) + " kB"
  : n < 1073741824 ? number(n / 1048576) + " MB" : number(n / 1073741824) + " GB"

/** @param {number} at */
const clock = (at) => new Date(at).toLocaleTimeString("en-GB")

/** @param {Traffic} traffic */
const total = ({ others, reads, writes }) => reads + writes + others

/** @param {Server} server */
const answers = ({ state }) => state !== "down" && state !== "suspect" && state !== "ejected" && state !== "starting"

/** @type {Record<string, string>} */
const tones = { up: "good", unchecked: "quiet", starting: "quiet", draining: "quiet", lagging: "warn", suspect: "warn",
  foreign: "bad", down: "bad", ejected: "bad" }
/** @type {Record<string, string>} */
const marks = { good: "\u25CF", quiet: "\u25CB", warn: "\u25B2", bad: "\u2716" }

/** @typedef {"rate" | "lag" | "latency" | "inFlight"} Measure */
/** @typedef {Array<number | undefined>} Series */

/** A small plot of the values that were polled. @param {string} title @param {string} color @param {number} floor */
const makePlot = (title, color, floor) => {
  const line = svg("path", { class: "line", "vector-effect": "non-scaling-stroke" })
  const area = svg("path", { class: "area" })
  const value = el("span", "value", ["\u2013"])
  const plot = svg("svg", { class: "plot", viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" },
    [area, line])
  const root = el("div", "measure " + color, [el("dt", "", [title]), el("dd", "", [value, plot])])
  /** @param {Series} series @param {string} text */
  const update = (series, text) => {
    say(value, text)
    const top = Math.max(floor, ...series.map((one) => one ?? 0)) * 1.1
    /** @type {Array<Array<string>>} */
    const runs = [[]]
    const steps = Math.max(room, series.length) - 1
    series.forEach((one, i) => {
      const x = 100 - ((series.length - 1 - i) * 100) / steps
      if (one === undefined) runs.push([])
      else runs[runs.length - 1]?.push(x.toFixed(1) + " " + (29 - (28 * one) / top).toFixed(1))
    })
    const drawn = runs.filter((run) => run.length > 1)
    const x = /** @param {string | undefined} point */ (point) => (point ?? "").split(" ")[0]
    line.setAttribute("d", drawn.map((run) => "M" + run.join("L")).join(""))
    area.setAttribute("d", drawn.map((run) =>
      "M" + x(run[0]) + " 30L" + run.join("L") + "L" + x(run[run.length - 1]) + " 30Z").join(""))
  }
  return { root, update }
}

/** @type {Map<string, { at: number, total: number } & Record<Measure, Series>>} */
const histories = new Map()

/** What was polled of a server, with one more value of each. @param {Server} server @param {number} at */
const remember = (server, at) => {
  const key = keyOf(server)
  const count = total(server.traffic)
  const known = histories.get(key)
  const history = known ?? { at, total: count, rate: [], lag: [], latency: [], inFlight: [] }
  histories.set(key, history)
  const isUp = answers(server)
  const seconds = (at - history.at) / 1000
  const rate = seconds > 0 ? Math.max(0, count - history.total) / seconds : known === undefined ? undefined : 0
  if (known !== undefined && seconds <= 0) return history
  /** @param {Series} series @param {number | undefined} value */
  const push = (series, value) => {
    series.push(value)
    if (series.length > samples) series.shift()
  }
  push(history.rate, rate)
  push(history.lag, isUp ? server.lag?.millis : undefined)
  push(history.latency, isUp && server.latency > 0 ? server.latency : undefined)
  push(history.inFlight, server.inFlight)
  history.at = at
  history.total = count
  return history
}

/** @param {Server} server */
const keyOf = ({ name }) => name

let isBusy = false

/** @param {string} text */
const notice = (text) => {
  const element = byId("notice")
  element.hidden = text === ""
  say(element, text)
}

/** Does something to a server. @param {string} path @param {Record<string, string>} parameters */
const operate = async (path, parameters) => {
  if (isBusy) return
  isBusy = true
  document.body.classList.add("busy")
  notice("")
  try {
    const response = await fetch(base + path + "?" + new URLSearchParams(parameters), { method: "POST" })
    const answer = await response.json()
    if (response.ok) show(answer)
    else notice(answer.error)
  } catch (error) {
    notice("That request got no answer: " + error)
  } finally {
    isBusy = false
    document.body.classList.remove("busy")
  }
}

const makeServer = () => {
  const name = el("h3")
  const role = el("span", "role")
  const mark = el("span", "mark")
  mark.setAttribute("aria-hidden", "true")
  const state = el("span")
  const badge = el("span", "state", [mark, state])
  const where = el("p", "where")
  const reason = el("p", "reason")
  const plots = {
    rate: makePlot("Statements", "blue", 5), lag: makePlot("Lag", "amber", 100),
    latency: makePlot("Latency of reads", "violet", 5), inFlight: makePlot("In flight", "teal", 4)
  }
  const used = el("span", "used")
  const idle = el("span", "idle")
  const meter = el("div", "pool", [used, idle])
  meter.setAttribute("aria-hidden", "true")
  const pool = el("p", "where")
  const buttons = el("div", "buttons")
  const root = el("li", "server", [
    el("div", "head", [name, role, badge]), where, reason,
    el("dl", "measures", Object.values(plots).map((plot) => plot.root)), meter, pool, buttons
  ])
  return { root, name, role, mark, state, badge, where, reason, plots, used, idle, pool, buttons }
}

/** @typedef {ReturnType<typeof makeServer>} ServerView */

/** @param {Status} status @param {Server} server @returns {Array<{ label: string, run: () => void }>} */
const actionsOf = ({ operations }, { actions, name, state }) => [
  ...(operations
    ? [state === "draining"
        ? { label: "Undrain", run: () => void operate("undrain", { engine: name }) }
        : { label: "Drain", run: () => void operate("drain", { engine: name }) }]
    : []),
  ...actions.map((action) => ({ label: action, run: () => void operate("act", { engine: name, action }) }))
]

/** @param {Status} status */
const updateServer = (status) => /** @param {ServerView} view @param {Server} server */ (view, server) => {
  const history = remember(server, status.at)
  const { idle, max, total: open, waiting } = server.pool
  const tone = tones[server.state] ?? "quiet"
  const isUp = answers(server)
  say(view.name, server.name)
  const role = server.role ?? "unknown role"
  say(view.role, server.name === status.writer ? "takes the writes" : isUp || server.role === undefined ? role : "was " + role)
  view.role.classList.toggle("writer", server.name === status.writer)
  style(view.badge, "state " + tone)
  style(view.root, "server " + tone)
  say(view.mark, marks[tone] ?? "")
  say(view.state, server.state)
  const address = server.host === undefined ? "" : " \u00B7 " + server.host + (server.port === undefined ? "" : ":" + server.port)
  const age = server.since === undefined ? "" : " for " + duration(Math.max(0, status.at - server.since))
  say(view.where, "group " + server.group + address)
  say(view.reason, server.state + age + (server.reason === undefined ? "" : ": " + server.reason))
  const { inFlight, lag, latency, rate } = view.plots
  rate.update(history.rate, number(history.rate[history.rate.length - 1] ?? 0) + "/s")
  lag.update(history.lag, server.lag === undefined || !isUp ? "\u2013" : duration(server.lag.millis) + " \u00B7 " + bytes(server.lag.bytes))
  latency.update(history.latency, server.latency > 0 && isUp ? duration(server.latency) : "\u2013")
  inFlight.update(history.inFlight, number(server.inFlight))
  view.used.style.width = (100 * (open - idle)) / Math.max(max, 1) + "%"
  view.idle.style.width = (100 * idle) / Math.max(max, 1) + "%"
  say(view.pool, "pool: " + (open - idle) + " in use, " + idle + " idle, " + waiting + " waiting, at most " + max)
  const actions = actionsOf(status, server)
  while (view.buttons.children.length > actions.length) view.buttons.lastElementChild?.remove()
  actions.forEach(({ label, run }, i) => {
    const button = /** @type {HTMLButtonElement} */ (view.buttons.children[i] ?? view.buttons.appendChild(el("button")))
    button.type = "button"
    // The second click of a double click would be for what has taken the place of the button.
    button.onclick = ({ detail }) => {
      if (detail < 2) run()
    }
    say(button, label)
    button.setAttribute("aria-label", label + " " + server.name)
  })
}

const makeTraffic = () => {
  const name = el("th")
  name.setAttribute("scope", "row")
  const cells = [0, 1, 2].map(() => el("td", "number"))
  const parts = ["read", "write", "rest"].map((kind) => el("span", kind))
  const bar = el("div", "bar", parts)
  bar.setAttribute("aria-hidden", "true")
  const percent = el("span", "percent")
  const rate = el("td", "number")
  cells[2]?.classList.add("other")
  return { root: el("tr", "", [name, ...cells, el("td", "share", [bar, percent]), rate]), name, cells, parts, percent, rate }
}

/** @param {ReadonlyArray<Server>} servers */
const updateTraffic = (servers) => {
  const sum = servers.reduce((all, { traffic }) => all + total(traffic), 0)
  return /** @param {ReturnType<typeof makeTraffic>} view @param {Server} server */ (view, server) => {
    const counts = [server.traffic.reads, server.traffic.writes, server.traffic.others]
    say(view.name, server.name)
    counts.forEach((count, i) => {
      const [cell, part] = [view.cells[i], view.parts[i]]
      if (cell !== undefined) say(cell, number(count))
      if (part !== undefined) part.style.width = (100 * count) / Math.max(sum, 1) + "%"
    })
    say(view.percent, Math.round((100 * total(server.traffic)) / Math.max(sum, 1)) + " %")
    const rates = histories.get(keyOf(server))?.rate ?? []
    say(view.rate, number(rates[rates.length - 1] ?? 0))
  }
}

/** @param {number} at */
const time = (at) => {
  const element = el("time", "", [clock(at)])
  element.setAttribute("datetime", new Date(at).toISOString())
  return element
}

/** @param {Decided} decision */
const makeDecision = (decision) => {
  const kind = el("span", "kind " + decision.kind, [decision.kind])
  const engines = el("span", "engines")
  const last = el("time")
  const reason = el("p", "reason")
  const root = el("li", "decision", [el("div", "line", [kind, engines, last]), reason])
  if (decision.sql !== undefined) {
    const summary = el("summary", "", [el("code", "", [decision.sql.replace(/\s+/g, " ").trim()])])
    root.append(el("details", "", [summary, el("pre", "", [decision.sql])]))
  }
  return { root, engines, last, reason }
}

/** @typedef {ReturnType<typeof makeDecision>} DecisionView */

/** @param {number} now */
const updateDecision = (now) => /** @param {DecisionView} view @param {Decided} decision */ (view, decision) => {
  const recent = decision.engines.filter(({ at }, i) => i === 0 || at > decision.last - 10000).map(({ engine }) => engine)
  const observed = decision.observed === undefined ? "" : ", else " + decision.observed.engine
  say(view.engines, "\u2192 " + [...new Set(recent)].sort().join(", ") + observed)
  say(view.reason, decision.reason)
  say(view.last, clock(decision.last))
  view.last.setAttribute("datetime", new Date(decision.last).toISOString())
  view.root.classList.toggle("old", now - decision.last > 10000)
}

/** @param {HealthEvent} event @returns {readonly [string, string]} */
const eventText = (event) => {
  switch (event._tag) {
    case "StateChanged":
      return [tones[event.to] ?? "quiet", event.engine + " is " + event.to + (event.reason === undefined ? "" : ": " + event.reason)]
    case "Drained":
      return ["quiet", event.engine + " is drained"]
    case "Undrained":
      return ["good", event.engine + " is back"]
    case "PrimaryChanged":
      return event.engine === undefined
        ? ["bad", "No server takes the writes: " + event.reason]
        : ["warn", "Writes go to " + event.engine + " (were: " + event.from + "): " + event.reason]
    case "PrimaryDisputed":
      return ["bad", event.rivals.join(", ") + " claims to be the primary too; writes go to " + (event.engine ?? "none")]
    case "EngineAdded":
      return ["good", event.engine + " is new"]
    case "EngineRemoved":
      return ["quiet", event.engine + " is gone"]
  }
}

/** @param {HealthEvent} event */
const makeEvent = (event) => {
  const [tone, text] = eventText(event)
  const mark = el("span", "mark " + tone, [marks[tone] ?? ""])
  mark.setAttribute("aria-hidden", "true")
  return { root: el("li", "event", [mark, el("span", "text", [text]), time(event.at)]) }
}

/** @param {Status} status @returns {readonly [string, string]} */
const summaryOf = ({ engines, writer }) => {
  const others = engines.filter(({ state }) => state !== "up" && state !== "unchecked")
  const list = others.map(({ name, state }) => name + " is " + state).join(", ")
  const count = engines.length === 1 ? "The only server is up." : "All " + engines.length + " servers are up."
  return [
    writer === undefined ? "bad" : others.length > 0 ? "warn" : "good",
    (others.length === 0 ? count : list + ".") + (writer === undefined ? " No server takes the writes." : " Writes go to " + writer + ".")
  ]
}

/** @type {Map<string, ServerView>} */
const servers = new Map()
/** @type {Map<string, ReturnType<typeof makeTraffic>>} */
const traffic = new Map()
/** @type {Map<string, DecisionView>} */
const decisions = new Map()
/** @type {Map<string, ReturnType<typeof makeEvent>>} */
const events = new Map()
/** @type {Map<string, number>} */
const places = new Map()
let refresh = 1000

/** Servers stay where they were first seen, whichever group they are in now. @param {ReadonlyArray<Server>} engines */
const inPlace = (engines) => {
  for (const server of engines) if (!places.has(keyOf(server))) places.set(keyOf(server), places.size)
  return [...engines].sort((a, b) => (places.get(keyOf(a)) ?? 0) - (places.get(keyOf(b)) ?? 0))
}

/** @param {Status} status */
const show = (status) => {
  const engines = inPlace(status.engines)
  refresh = status.refresh
  document.title = status.title
  say(byId("title"), status.title)
  say(byId("description"), status.description ?? "")
  byId("description").hidden = status.description === undefined
  const [tone, text] = summaryOf(status)
  say(byId("summary"), text)
  style(byId("summary"), "summary " + tone)
  sync(byId("servers"), servers, engines, keyOf, makeServer, updateServer(status))
  sync(byId("traffic"), traffic, engines, keyOf, makeTraffic, updateTraffic(engines))
  say(byId("since"), clock(status.since))
  sync(byId("decisions"), decisions, status.decisions.slice(0, shown), ({ id }) => String(id), makeDecision,
    updateDecision(status.at))
  sync(byId("events"), events, status.events.slice(0, shown), (event) => JSON.stringify(event), makeEvent, () => {})
  byId("no-decisions").hidden = status.decisions.length > 0
  byId("no-events").hidden = status.events.length > 0
  byId("decisions").hidden = status.decisions.length === 0
  byId("events").hidden = status.events.length === 0
  if (!isPaused) say(byId("clock"), "Live \u00B7 " + clock(status.at))
  document.body.classList.remove("stale")
}

let isPaused = false
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer

const poll = async () => {
  clearTimeout(timer)
  if (isPaused || document.hidden) return
  try {
    const response = await fetch(base + "status.json", { signal: AbortSignal.timeout(10000), cache: "no-store" })
    if (!response.ok) throw new Error("it answers with " + response.status)
    show(await response.json())
  } catch (error) {
    document.body.classList.add("stale")
    say(byId("clock"), "No answer \u00B7 trying again")
  }
  timer = setTimeout(poll, refresh)
}

byId("pause").addEventListener("click", () => {
  isPaused = !isPaused
  byId("pause").setAttribute("aria-pressed", String(isPaused))
  if (isPaused) say(byId("clock"), "Paused")
  void poll()
})
document.addEventListener("visibilitychange", () => void poll())
void poll()
})()
`
