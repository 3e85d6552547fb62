import { button, copyable, facts, field, form, h, show, table, toast, update } from './dom.js'
import { call, get, spacePath } from './api.js'
import { accountOf, ago, badge, count, parseSize, plural, short, size, spaceParts, stateOf } from './format.js'
import { alertList } from './overview.js'
import { eventList } from './log.js'
import { confirm, sign } from './wallet.js'
import { host } from './spaces.js'

const policies = [
  ['', 'as the node does'], ['eager', 'eager: all that are current'], ['lazy', 'lazy: what somebody reads'], ['all', 'all: those of the history too'],
]

export function space(main, id, signal) {
  const path = spacePath(id)
  const { name, owner } = spaceParts(id)
  const state = h('div', {})
  const alerts = h('div', {})
  const hosts = h('div', { id: 'hosts' })
  const joins = h('div', { id: 'joins' })
  const databases = h('div', {})
  const events = h('div', {})
  const policy = h('select', { id: 'policy' }, policies.map(([value, text]) => h('option', { value }, text)))
  const quota = h('input', { type: 'text', id: 'quota', placeholder: 'such as 10 MiB; empty: no limit of its own', autocomplete: 'off' })
  let touched = false
  for (const control of [policy, quota]) control.addEventListener('input', () => (touched = true))

  show(main, h('p', { class: 'crumb' }, h('a', { href: '#/spaces' }, 'Spaces')), h('h1', {}, name), h('p', { class: 'lead' }, copyable(id, 'the id of the Space')),
    h('section', { class: 'card' }, state, alerts),
    h('section', { class: 'card' }, h('h2', {}, 'Hosts'), hosts),
    h('section', { class: 'card' }, h('h2', {}, 'Join other hosts'), joinForm(path, () => refresh()), joins),
    h('section', { class: 'card split' },
      form({ id: 'policy-form' }, field('Which values are fetched', policy), 'Set', async () => {
        await call('PUT', `${path}/policy`, { policy: policy.value === '' ? null : policy.value })
        touched = false
        toast('The policy is set.')
        await refresh()
      }),
      form({ id: 'quota-form' }, field('How much the Space may hold', quota), 'Set', async () => {
        await setQuota(id, quota.value)
        touched = false
        toast('The limit is set.')
        await refresh()
      })),
    h('section', { class: 'card' }, h('h2', {}, 'SQL databases'), databases),
    h('section', { class: 'card' }, h('h2', {}, 'Events'), events),
    h('section', { class: 'card' }, h('h2', {}, 'Leave'), h('p', {}, 'The owner signs that this node is no host of the Space any more. Other hosts keep theirs; this one answers 403 and keeps what it has.'),
      h('div', { class: 'actions' }, button('Leave this Space', () => leave(), { class: 'danger', id: 'leave' })),
      h('p', { class: 'hint' }, 'To delete what is here, stop the node and run:'), h('pre', {}, `tinycloud-peer leave ${id} --delete`)))

  let last = null
  const leave = () => remove(last.hosts.find((x) => x.self), last)
  const remove = async (x, v) => {
    const others = v.hosts.filter((y) => !y.self).length
    const explain = x.self
      ? `This is the node itself: once it is signed, it answers 403 for the Space. ${others === 0 ? 'No other host is known: apps lose the Space.' : 'What other hosts do not have of it is lost to apps.'}`
      : `The host ${x.alias ? `${x.alias}, ${x.did},` : x.did} is no host of the Space from then on: the other hosts refuse it.`
    const text = await get(`${path}/hosts/${encodeURIComponent(x.did)}/removal?domain=${encodeURIComponent(location.host)}`)
    await sign({ title: x.self ? 'Leave this Space' : 'Remove a host', explain, text: text.siwe, owner: accountOf(id), path: `${path}/hosts/${encodeURIComponent(x.did)}/removal`, done: x.self ? 'This node is no host of the Space any more.' : 'The host is removed.' })
    await refresh()
  }
  const refresh = async () => {
    let v
    try {
      v = await get(`${path}?brief=1`, signal)
    } catch (e) {
      if (e.status !== 404) throw e
      return update(state, null, () => notHere(id, refresh))
    }
    const [set, limits, recent, found] = await Promise.all([
      get(`${path}/policy`, signal), get('/admin/quota/' + encodeURIComponent(id), signal), get(`/admin/events?limit=8&space=${encodeURIComponent(v.space)}`, signal), get('/admin/alerts', signal),
    ])
    last = v
    update(state, [v, limits], () => showState(v, limits))
    update(alerts, found.filter((a) => a.space === v.space), (list) => (list.length === 0 ? [] : alertList(list, false)))
    update(hosts, v.hosts.map((x) => ({ ...x, lastSeen: x.self ? null : x.lastSeen })), () => showHosts(v, remove))
    update(joins, v.joins, () => showJoins(v, path, refresh))
    update(databases, v.databases, showDatabases)
    update(events, recent.events, () => eventList(recent.events, false))
    if (!touched) {
      policy.value = set.own ? set.policy : ''
      quota.value = limits.override_bytes === null ? '' : exact(limits.override_bytes)
    }
  }
  return { refresh }
}

function notHere(id, refresh) {
  return [h('p', {}, 'This Space is not hosted here.'), h('div', { class: 'actions' }, button('Host it here', async () => {
    if ((await host(id)) !== null) await refresh()
  }, { class: 'primary', id: 'host-here' }))]
}

function showState(v, limits) {
  const limit = limits.effective_limit_bytes
  return [
    h('p', { class: 'health' }, badge(stateOf(v)), ' ', v.catchup && `catching up: ${count(v.catchup.entries)} of ${count(v.catchup.total)} entries`),
    facts([
      ['Keys', count(v.keys)],
      ['Size', limit === null ? `${size(v.bytes)}, no limit` : [h('meter', { min: 0, max: limit || 1, value: Math.min(v.bytes, limit), high: limit * 0.8, 'aria-label': 'Size of the limit' }), ` ${size(v.bytes)} of ${size(limit)}`]],
      ['History', `${size(v.history)}, ${plural(v.epochs, 'epoch')}`], ['Last write', ago(v.written)], ['To fetch', plural(v.wants, 'value')],
      ['Conflicts', count(v.conflicts)], v.parked > 0 && ['Parked', count(v.parked)],
      ['Host until', v.expires === null ? 'for ever' : ago(v.expires)], ['Activity', v.activity],
      ['This host', copyable(v.did, 'the DID of this host')],
    ]),
    h('details', {}, h('summary', {}, 'Addresses for other hosts to join'), v.addrs.length === 0 ? h('p', {}, 'None is known.') : h('ul', { class: 'plain' }, v.addrs.slice(0, 32).map((a) => h('li', {}, copyable(a, 'the address'))))),
  ]
}

function lag(x) {
  if (x.self) return '–'
  if (x.connected && x.synced) return 'none'
  return x.syncedAt === null ? 'not known' : ['equal ', ago(x.syncedAt)]
}

function showHosts(v, remove) {
  if (v.hosts.length === 0) return h('p', { class: 'quiet' }, 'No hosts are known.')
  return table('Hosts of this Space', ['Host', 'Connected', 'RTT', 'Lag', 'Last seen', 'Notes', ''], v.hosts.slice(0, 200).map((x) => [
    h('span', { title: x.did }, x.self ? h('strong', {}, 'this node') : x.alias || h('code', {}, short(x.did, 14, 6))),
    x.self ? '–' : x.connected ? badge([x.path || 'connected', x.path === 'relayed' ? 'busy' : 'good']) : badge(['away', 'idle']),
    x.rttMs > 0 ? `${x.rttMs} ms` : '–', lag(x), x.self ? 'now' : ago(x.lastSeen),
    [x.forked && 'signed two histories. ', x.older && 'older version. ', Math.abs(x.skewMs) > 60_000 && `clock off by ${Math.round(x.skewMs / 1000)} s. `].filter(Boolean).join('') || '–',
    button(x.self ? 'Leave' : 'Remove', () => remove(x, v), { class: 'small', 'data-key': 'remove ' + x.did, 'aria-label': x.self ? 'Leave this Space' : `Remove the host ${x.alias || x.did}` }),
  ]))
}

function joinForm(path, refresh) {
  const addr = h('input', { type: 'text', id: 'join-addr', autocomplete: 'off', spellcheck: 'false', placeholder: '/ip4/203.0.113.7/tcp/4001/p2p/…' })
  const empty = h('input', { type: 'checkbox', id: 'join-empty' })
  return form({ id: 'join' }, [
    field('Address of another host', addr, 'Of the Space, as the other host’s page shows it, or of its node, ending in /p2p/ and its peer ID.'),
    h('p', { class: 'check' }, empty, h('label', { for: 'join-empty' }, 'The others have no history: do not wait for it')),
  ], 'Join', async () => {
    await call('POST', `${path}/join`, { addrs: addr.value.trim() === '' ? [] : [addr.value.trim()], empty: empty.checked })
    addr.value = ''
    empty.checked = false
    toast('The node joins, and goes on trying.')
    await refresh()
  })
}

function showJoins(v, path, refresh) {
  if (v.joins.length === 0) return []
  return table('Addresses this Space is joined through', ['Address', 'State', 'Last try', ''], v.joins.slice(0, 200).map((j) => [
    h('code', { title: j.addr }, short(j.addr, 34, 10)), [j.state, j.lastError && h('small', {}, j.lastError)], ago(j.lastTry, 'not yet'),
    j.named ? h('small', {}, 'of a node that is asked') : button('Forget', async () => {
      if (!(await confirm('Forget an address', `The Space is not joined through ${j.addr} any more.`, 'Forget it'))) return
      await call('DELETE', `${path}/joins/${encodeURIComponent(j.addr)}`)
      toast('The address is forgotten.')
      await refresh()
    }, { class: 'small', 'data-key': 'forget ' + j.addr, 'aria-label': `Forget ${j.addr}` }),
  ]))
}

function showDatabases(list) {
  if (list.length === 0) return h('p', { class: 'quiet' }, 'None.')
  return table('SQL databases of this Space', ['Database', 'Writes', 'Failed', 'Size'], list.slice(0, 200).map((d) => [h('code', {}, d.name), count(d.writes), d.failed === null ? 'not known' : count(d.failed), size(d.bytes)]))
}

async function setQuota(id, text) {
  const path = '/admin/quota/' + encodeURIComponent(id)
  if (text.trim() === '') return call('DELETE', path)
  const bytes = parseSize(text)
  if (!Number.isSafeInteger(bytes)) throw new Error('Expected a size such as 10 MiB or 1.5 GB.')
  return call('PUT', path, { limit_bytes: bytes })
}

/** exact is a size that reads back as what it is. */
const exact = (bytes) => (parseSize(size(bytes)) === bytes ? size(bytes) : String(bytes))
