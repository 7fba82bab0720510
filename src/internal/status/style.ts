/** How the page looks: light and dark as the system has it, from 360 pixels on. */
export const style: string = `
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --panel: #ffffff; --line: #dfe3e8; --text: #1b2430; --soft: #55606e;
  --good: #14683e; --warn: #8f5b00; --bad: #b3261e; --quiet: #55606e;
  --good-soft: #e4f4ec; --warn-soft: #fcf1dc; --bad-soft: #fce9e7; --quiet-soft: #eceff3;
  --blue: #2b6cb8; --amber: #a86a00; --violet: #7352b8; --teal: #13807c; --track: #e8ebef;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10141a; --panel: #181e26; --line: #2a323d; --text: #e6eaf0; --soft: #9ba8b7;
    --good: #5cc795; --warn: #e5b158; --bad: #f28b82; --quiet: #9ba8b7;
    --good-soft: #16302a; --warn-soft: #332a17; --bad-soft: #3a1f20; --quiet-soft: #242c36;
    --blue: #6cabf0; --amber: #e0aa4c; --violet: #b09af0; --teal: #4fc4bd; --track: #262e39;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body {
  margin: 0 auto; padding: 1.25rem clamp(0.75rem, 3vw, 2rem) 3rem; max-width: 84rem; background: var(--page);
  color: var(--text); font: 0.9375rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
header { display: flex; flex-wrap: wrap; gap: 0.5rem 1.5rem; align-items: center; justify-content: space-between; }
.brand { flex: 1 1 16rem; min-width: 0; }
h1, h2, h3, p, dl, dd, ol, ul, pre { margin: 0; padding: 0; }
h1 { font-size: 1.25rem; font-weight: 650; letter-spacing: -0.01em; }
h2 { margin: 1.75rem 0 0.6rem; font-size: 0.8125rem; font-weight: 600; color: var(--soft); letter-spacing: 0.04em; text-transform: uppercase; }
h3 { font-size: 1.0625rem; font-weight: 650; }
#description { color: var(--soft); max-width: 60rem; }
ol, ul { list-style: none; }
.live { display: flex; gap: 0.75rem; align-items: center; color: var(--soft); }
button {
  font: inherit; font-size: 0.8125rem; color: var(--text); background: var(--panel); border: 1px solid var(--line);
  border-radius: 0.5rem; padding: 0.3rem 0.75rem; min-height: 2rem; cursor: pointer;
}
button:hover { border-color: var(--blue); }
button[aria-pressed="true"] { background: var(--quiet-soft); border-color: var(--soft); }
.busy button { cursor: progress; }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
.summary, .notice { margin-top: 1rem; padding: 0.7rem 1rem; border-radius: 0.75rem; background: var(--quiet-soft); font-weight: 550; }
.summary.good { background: var(--good-soft); color: var(--good); }
.summary.warn { background: var(--warn-soft); color: var(--warn); }
.summary.bad, .notice { background: var(--bad-soft); color: var(--bad); }
.stale main { opacity: 0.6; }
.servers { display: grid; gap: 0.875rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.server, .panel { background: var(--panel); border: 1px solid var(--line); border-radius: 0.875rem; }
.server { display: flex; flex-direction: column; gap: 0.35rem; padding: 0.9rem 1rem 1rem; min-width: 0; }
.server.bad { border-color: var(--bad); }
.server.warn { border-color: var(--warn); }
.head { display: flex; flex-wrap: wrap; gap: 0.25rem 0.6rem; align-items: baseline; }
.role { color: var(--soft); font-size: 0.8125rem; }
.role.writer { color: var(--blue); font-weight: 600; }
.state { margin-left: auto; padding: 0.05rem 0.6rem; border-radius: 1rem; font-size: 0.8125rem; font-weight: 600; background: var(--quiet-soft); color: var(--quiet); }
.state.good { background: var(--good-soft); color: var(--good); }
.state.warn { background: var(--warn-soft); color: var(--warn); }
.state.bad { background: var(--bad-soft); color: var(--bad); }
.mark { margin-right: 0.4rem; font-size: 0.7em; }
.mark.good { color: var(--good); } .mark.warn { color: var(--warn); } .mark.bad { color: var(--bad); } .mark.quiet { color: var(--quiet); }
.where, .hint { color: var(--soft); font-size: 0.8125rem; }
.server .reason { font-size: 0.8125rem; color: var(--soft); }
.server.bad .reason { color: var(--bad); } .server.warn .reason { color: var(--warn); }
.measures { display: grid; grid-template-columns: 1fr 1fr; gap: 0.6rem 1rem; margin: 0.35rem 0 0.4rem; }
.measure { min-width: 0; }
.measure dt { color: var(--soft); font-size: 0.75rem; }
.measure .value { display: block; font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.measure.blue { color: var(--blue); } .measure.amber { color: var(--amber); }
.measure.violet { color: var(--violet); } .measure.teal { color: var(--teal); }
.measure .value { color: var(--text); }
.plot { display: block; width: 100%; height: 1.9rem; margin-top: 0.15rem; border-bottom: 1px solid var(--line); }
.line { fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linejoin: round; }
.area { fill: currentColor; opacity: 0.14; }
.pool, .bar { display: flex; height: 0.4rem; border-radius: 0.4rem; background: var(--track); overflow: hidden; }
.used { background: var(--teal); } .idle { background: var(--teal); opacity: 0.35; }
.buttons { display: flex; flex-wrap: wrap; gap: 0.4rem; margin-top: auto; }
.buttons:not(:empty) { padding-top: 0.5rem; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 0.5rem 0.75rem; text-align: left; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-size: 0.75rem; font-weight: 500; }
tbody th { font-weight: 600; }
.number { text-align: right; }
.share { width: 34%; }
td.share { white-space: nowrap; }
.share .bar { display: inline-flex; width: calc(100% - 3.25rem); vertical-align: middle; height: 0.6rem; }
.percent { display: inline-block; width: 3.25rem; text-align: right; }
.read { background: var(--blue); } .write { background: var(--amber); } .rest { background: var(--soft); }
.key { display: inline-block; width: 0.65rem; height: 0.65rem; border-radius: 0.2rem; margin-left: 0.75rem; }
.panel > .hint { padding: 0.5rem 0.75rem; }
.columns { display: grid; gap: 0 1.25rem; grid-template-columns: minmax(0, 1.7fr) minmax(0, 1fr); }
.list > li { padding: 0.55rem 0.9rem; border-bottom: 1px solid var(--line); }
.list > li:last-child, tbody + tbody tr:last-child > * { border-bottom: 0; }
.line { min-width: 0; }
.decision .line { display: flex; gap: 0.6rem; align-items: baseline; }
.decision.old { opacity: 0.75; }
.kind { flex: none; min-width: 3.6rem; padding: 0 0.45rem; border-radius: 0.4rem; font-size: 0.75rem; font-weight: 600; text-align: center; background: var(--quiet-soft); color: var(--text); }
.kind.read { background: none; box-shadow: inset 0 0 0 1px var(--blue); color: var(--blue); }
.kind.write { background: none; box-shadow: inset 0 0 0 1px var(--amber); color: var(--amber); }
.engines { font-weight: 600; }
time { margin-left: auto; flex: none; color: var(--soft); font-size: 0.8125rem; }
.decision .reason { font-size: 0.8125rem; color: var(--soft); }
code, pre { font: 0.8125rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
summary { display: flex; cursor: pointer; border-radius: 0.3rem; }
summary::before { content: "\\25B8"; width: 1rem; flex: none; color: var(--soft); }
details[open] summary::before { content: "\\25BE"; }
summary code { overflow: hidden; white-space: nowrap; text-overflow: ellipsis; min-width: 0; }
details[open] summary code { visibility: hidden; }
pre { white-space: pre-wrap; padding: 0.25rem 0 0.25rem 1rem; }
.event { display: flex; gap: 0.1rem 0.5rem; align-items: baseline; font-size: 0.875rem; }
.event .text { min-width: 0; }
a { color: var(--blue); }
@media (max-width: 56rem) { .columns { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 36rem) {
  .share { display: none; }
  th, td { padding: 0.45rem 0.5rem; }
}
@media (prefers-reduced-motion: no-preference) { .used, .idle, .bar span { transition: width 0.3s; } .stale main { transition: opacity 0.3s; } }
@media (forced-colors: active) { .bar span, .used, .idle, .key { forced-color-adjust: none; } }
`
