import { copyable, facts, h, show, update } from './dom.js'
import { get } from './api.js'
import { ago, count, plural, short, size } from './format.js'
import { sparkline } from './chart.js'
import { eventList } from './log.js'

const reach = {
  public: 'public: other nodes on the internet reach it', private: 'private: nodes on the internet do not reach it directly, hosts that both reach relay',
  unknown: 'not known: no node on the internet has tried yet',
}

/** alertList shows alerts, with the Space that each is about. */
export function alertList(list, links = true) {
  if (list.length === 0) return h('p', { class: 'quiet' }, 'Nothing needs your attention.')
  return h('ul', { class: 'alerts' }, list.map((a) => h('li', { class: 'alert ' + a.level },
    h('strong', {}, { error: 'Broken', warning: 'Warning', info: 'Note' }[a.level] ?? a.level), ' ', a.text,
    links && a.space !== '' && [' ', h('a', { href: '#/spaces/' + encodeURIComponent(a.space) }, short(a.space, 24, 16))])))
}

export function overview(main, signal) {
  const health = h('section', { class: 'card' })
  const alerts = h('div', {})
  const charts = h('div', { class: 'sparks' })
  const events = h('div', {})
  let samples = []
  let every = 10
  show(main, h('h1', {}, 'Overview'), health,
    h('section', { class: 'card', 'aria-labelledby': 'alerts' }, h('h2', { id: 'alerts' }, 'Alerts'), alerts),
    h('section', { class: 'card', 'aria-labelledby': 'activity' }, h('h2', { id: 'activity' }, 'The last half hour'), charts),
    h('section', { class: 'card', 'aria-labelledby': 'events' }, h('h2', { id: 'events' }, 'Recent events'), events, h('p', {}, h('a', { href: '#/log' }, 'The whole log'))))

  const draw = () => update(charts, samples, (all) => {
    if (all.length === 0) return h('p', { class: 'quiet' }, `The first measurement comes within ${every} seconds.`)
    const of = (name, title, format) => sparkline(title, all.map((s) => s[name]), format)
    const rate = (n) => (n >= 10 || n === 0 ? `${Math.round(n)}/s` : `${n.toFixed(1)}/s`)
    return [
      of('requests', 'Requests', rate), of('epochs', 'Writes', rate), of('traffic', 'Replication', (n) => size(n) + '/s'),
      of('lagMs', 'Lag of what came', (n) => (n === 0 ? 'none came' : `${Math.round(n)} ms`)), of('peers', 'Connected hosts', (n) => count(n)),
      of('stored', 'Stored', size), of('memory', 'Memory', size),
    ]
  })

  return {
    async refresh() {
      const [node, found, recent, history] = await Promise.all([
        get('/admin/node', signal), get('/admin/alerts', signal), get('/admin/events?limit=8', signal), get('/admin/history', signal),
      ])
      update(health, node, showNode)
      update(alerts, found, () => alertList(found))
      update(events, recent.events, () => eventList(recent.events))
      samples = history.samples
      every = history.everySeconds
      draw()
    },
    told(kind, data) {
      if (kind === 'sample') {
        samples = [...samples, data].slice(-180)
        draw()
      }
    },
  }
}

function showNode(node) {
  const well = node.trouble.length === 0
  return [
    h('p', { class: well ? 'health good' : 'health bad', id: 'health' }, h('strong', {}, well ? 'The node serves.' : 'The node has trouble.'), ' ',
      `It hosts ${plural(node.spaces, 'Space')} and is connected with ${plural(node.connections, 'other node')}.`,
      !node.replicates && ' Another process of the same database replicates.'),
    facts([
      ['Version', node.version], ['Started', ago(node.started)], ['HTTP API', h('code', {}, node.url)],
      ['From outside', reach[node.reachability] ?? node.reachability],
      ['Last backup', ago(node.backup, 'none is known')],
      ['DID', copyable(node.nodeId, 'the DID of the node')],
    ]),
    h('details', {}, h('summary', {}, `${plural(node.addrs.length, 'address', 'addresses')} for other nodes`),
      h('ul', { class: 'plain' }, node.addrs.slice(0, 32).map((a) => h('li', {}, copyable(a, 'the address'))))),
  ]
}
