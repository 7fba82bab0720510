import { createHash } from "node:crypto"
import { script } from "./script.js"
import { style } from "./style.js"

const hash = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`

/** The page may run its own script and style, ask its own server, and nothing else. */
export const contentSecurityPolicy: string = [
  "default-src 'none'",
  `script-src ${hash(script)}`,
  `style-src ${hash(style)}`,
  "connect-src 'self'",
  "img-src data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'"
].join("; ")

const icon =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E" +
  "%3Cpath d='M3 8h4l5-4M7 8l5 4' fill='none' stroke='%234a7dd0' stroke-width='2'/%3E" +
  "%3Ccircle cx='3' cy='8' r='2' fill='%234a7dd0'/%3E%3Ccircle cx='13' cy='4' r='2' fill='%232f9e68'/%3E" +
  "%3Ccircle cx='13' cy='12' r='2' fill='%232f9e68'/%3E%3C/svg%3E"

/** All that is shown comes from `status.json`: what is here is the same for everybody. */
export const page: string = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>effect-db-router</title>
<link rel="icon" href="${icon}">
<style>${style}</style>
</head>
<body>
<header>
  <div class="brand">
    <h1 id="title">effect-db-router</h1>
    <p id="description" hidden></p>
  </div>
  <div class="live">
    <span id="clock">Connecting</span>
    <button type="button" id="pause" aria-pressed="false">Pause</button>
  </div>
</header>
<main>
  <p id="summary" class="summary" role="status">Waiting for the first answer</p>
  <p id="notice" class="notice" role="alert" hidden></p>
  <section aria-labelledby="servers-title">
    <h2 id="servers-title">Servers</h2>
    <ul id="servers" class="servers"></ul>
  </section>
  <section aria-labelledby="traffic-title">
    <h2 id="traffic-title">Traffic</h2>
    <div class="panel">
      <table>
        <thead>
          <tr>
            <th scope="col">Server</th>
            <th scope="col" class="number">Reads</th>
            <th scope="col" class="number">Writes</th>
            <th scope="col" class="number other">Other</th>
            <th scope="col" class="share">Share</th>
            <th scope="col" class="number">Per second</th>
          </tr>
        </thead>
        <tbody id="traffic"></tbody>
      </table>
      <p class="hint">Statements since <span id="since">now</span>.
        <span class="key read" aria-hidden="true"></span> reads
        <span class="key write" aria-hidden="true"></span> writes
        <span class="key rest" aria-hidden="true"></span> other</p>
    </div>
  </section>
  <div class="columns">
    <section aria-labelledby="decisions-title">
      <h2 id="decisions-title">Recent decisions</h2>
      <ol id="decisions" class="panel list"></ol>
      <p id="no-decisions" class="hint">No statement yet.</p>
    </section>
    <section aria-labelledby="events-title">
      <h2 id="events-title">Events</h2>
      <ol id="events" class="panel list"></ol>
      <p id="no-events" class="hint">Nothing has happened yet.</p>
    </section>
  </div>
</main>
<noscript><p class="notice">This page needs JavaScript; <a href="status.json">status.json</a> does not.</p></noscript>
<script>${script}</script>
</body>
</html>
`
