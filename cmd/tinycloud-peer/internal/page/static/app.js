// Which part of the page is shown, and what keeps it up to date.

import { $, button, h, show, toast } from './dom.js'
import { forget, live, loggedIn, login, logout } from './api.js'
import { tick } from './format.js'
import { overview } from './overview.js'
import { hosting, spaces } from './spaces.js'
import { space } from './space.js'
import { nodes } from './nodes.js'
import { log } from './log.js'

const REFRESH = 10_000 // what no commit tells of, such as who is connected
const PAUSE = 300 // between a change and a look at it

const sections = [
  ['#/', 'Overview', overview], ['#/spaces', 'Spaces', spaces], ['#/host', 'Host', hosting], ['#/nodes', 'Nodes', nodes], ['#/log', 'Log', log],
]

let view = null // what is shown: { refresh(), told(kind, data) }
let leaving = new AbortController() // ends what the view before has under way
const following = new AbortController() // ends the stream of what changes
let due = 0

function route() {
  if (following.signal.aborted) return location.reload() // logged out: what follows begins anew
  const hash = location.hash || '#/'
  leaving.abort()
  leaving = new AbortController()
  const main = $('main')
  show(main)
  if (hash.startsWith('#/spaces/')) {
    view = space(main, decodeURIComponent(hash.slice('#/spaces/'.length)), leaving.signal)
  } else {
    const found = sections.find(([at]) => at === hash) ?? sections[0]
    view = found[2](main, leaving.signal)
  }
  for (const a of $('nav').querySelectorAll('a')) {
    const at = a.getAttribute('href')
    if (at === hash || (at === '#/spaces' && hash.startsWith('#/spaces/'))) a.setAttribute('aria-current', 'page')
    else a.removeAttribute('aria-current')
  }
  document.title = `${main.querySelector('h1')?.textContent ?? 'Node'} – TinyCloud node`
  refresh()
}

async function refresh() {
  if (view === null) return
  try {
    await view.refresh()
    tick()
  } catch (e) {
    if (e.name === 'AbortError') return
    if (e.status === 401) return end()
    if (e.status !== 0) toast(e.message, true) // that the node is gone, the bar says
  }
}

function soon() {
  if (due === 0) {
    due = setTimeout(() => {
      due = 0
      refresh()
    }, PAUSE)
  }
}

async function follow() {
  for (let pause = 500; ; pause = Math.min(2 * pause, 10_000)) {
    try {
      await live(following.signal, (kind, data) => {
        if (kind === 'open') {
          pause = 500
          status('live', 'live')
          soon()
        }
        view?.told?.(kind, data)
        if (kind === 'change' || kind === 'event') soon()
      })
    } catch (e) {
      if (following.signal.aborted) return
      if (e.status === 401) return end()
      status('not connected', 'gone')
    }
    await new Promise((done) => setTimeout(done, pause))
  }
}

function status(text, kind) {
  $('live').setAttribute('class', 'live ' + kind)
  if ($('live').textContent !== text) show($('live'), text)
}

function stop() {
  view = null
  leaving.abort()
  following.abort()
}

function end() {
  forget()
  stop()
  history.replaceState(null, '', '/')
  show($('live'))
  $('nav').hidden = true
  ask()
}

/** ask says how to log in. */
function ask(why) {
  show($('main'), h('section', { class: 'card narrow' }, h('h1', {}, 'Log in'), why && h('p', { role: 'alert', class: 'alert error' }, why),
    h('p', {}, 'On the machine of the node, run'), h('pre', {}, 'tinycloud-peer page'),
    h('p', {}, 'and open the link that it prints. It is good once, for ten minutes, and logs this browser in for twelve hours.')))
}

async function start() {
  const code = new URLSearchParams(location.hash.slice(1)).get('code')
  if (code !== null) {
    history.replaceState(null, '', '/') // the code is used up, and stands in no history
    try {
      await login(code)
    } catch (e) {
      return ask(e.message)
    }
  }
  if (!loggedIn()) return ask()
  show($('nav'), sections.map(([at, name]) => h('a', { href: at }, name)), button('Log out', async () => {
    stop() // what is under way would be refused
    await logout().finally(end)
  }, { class: 'link' }))
  $('nav').hidden = false
  addEventListener('hashchange', () => {
    route()
    $('main').focus()
  })
  route()
  setInterval(tick, 1000)
  setInterval(() => document.hidden || refresh(), REFRESH)
  follow()
}

start()
