import { button, field, form, h, show, table, update } from './dom.js'
import { get, spacePath } from './api.js'
import { ago, badge, count, size, short, spaceParts, stateOf } from './format.js'
import { account, hasWallet, sign } from './wallet.js'

const PAGE = 25

const legend = [
  ['hosted', 'no other host was met'], ['synced', 'equal with the hosts that are connected'], ['joining', 'waits for its history, and answers 503'],
  ['resting', 'nothing is new, and its hosts agreed to rest'], ['asleep', 'its hosts are away'], ['over limit', 'writes are refused'],
  ['imported', 'its owner has not made this node a host yet'], ['removed', 'the owner removed this host: it answers 403'],
  ['expired', 'its host delegation is over: it reads and does not write'],
]

export function spaces(main, signal) {
  const list = h('div', { id: 'spaces' })
  const find = h('input', { type: 'search', id: 'find', autocomplete: 'off', placeholder: 'Name or owner' })
  const starts = [''] // after which each page so far begins
  let timer = 0
  const next = button('Next', () => {
    starts.push(next.getAttribute('data-after'))
    return read()
  })
  const back = button('Previous', () => {
    starts.pop()
    return read()
  })
  find.addEventListener('input', () => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      starts.length = 1
      read().catch(() => {})
    }, 250)
  })
  const read = async () => {
    const after = starts[starts.length - 1]
    const found = await get(`/admin/spaces?brief=1&limit=${PAGE + 1}&after=${encodeURIComponent(after)}&find=${encodeURIComponent(find.value)}`, signal)
    const more = found.length > PAGE
    const page = found.slice(0, PAGE)
    next.hidden = !more
    if (more) next.setAttribute('data-after', page[PAGE - 1].space)
    back.hidden = starts.length === 1
    update(list, page.map((v) => ({ ...v, hosts: v.hosts.map((x) => ({ ...x, lastSeen: x.self ? null : x.lastSeen })) })), showSpaces)
  }
  show(main, h('h1', {}, 'Spaces'),
    h('section', { class: 'card' }, h('div', { class: 'toolbar' }, h('label', { for: 'find' }, 'Find'), find, h('a', { class: 'button primary', href: '#/host' }, 'Host a Space')),
      list, h('div', { class: 'actions' }, back, next),
      h('details', {}, h('summary', {}, 'What the states mean'), h('dl', { class: 'facts' }, legend.map(([k, v]) => h('div', {}, h('dt', {}, k), h('dd', {}, v)))))))
  return { refresh: read }
}

function showSpaces(list) {
  if (list.length === 0) return h('p', { class: 'quiet' }, 'No Spaces here.')
  return table('Spaces of this node', ['Space', 'State', 'Hosts', 'Keys', 'Size', 'To fetch', 'Last write'], list.map((v) => {
    const { name, owner } = spaceParts(v.space)
    const hosts = v.hosts.filter((x) => x.connected).length
    return [
      h('a', { href: '#/spaces/' + encodeURIComponent(v.space), 'data-key': v.space }, h('strong', {}, name), h('small', {}, short(owner, 22, 6))),
      badge(stateOf(v)), `${hosts} of ${v.hosts.length}`, count(v.keys), v.limit === null ? size(v.bytes) : `${size(v.bytes)} of ${size(v.limit)}`, count(v.wants), ago(v.written),
    ]
  }))
}

/** host has the owner of a Space make this node its host. It reports whether that came about. */
export async function host(space) {
  const text = await get(`${spacePath(space)}/hosting?domain=${encodeURIComponent(location.host)}`)
  const { owner } = spaceParts(text.space)
  const answer = await sign({
    title: 'Host a Space here', explain: `Whoever owns the Space lets this node, ${text.did}, be a host of it: it may then keep its data and answer for it.`,
    text: text.siwe, owner: owner.startsWith('pkh:eip155:') ? owner.split(':').pop() : null, path: `${spacePath(text.space)}/hosting`, done: 'This node is a host of the Space.',
  })
  return answer === null ? null : text.space
}

/** hosting is the form for it. */
export function hosting(main) {
  const name = h('input', { type: 'text', id: 'space-name', value: 'default', required: true, maxlength: 255, autocomplete: 'off', spellcheck: 'false' })
  const id = h('input', { type: 'text', id: 'space-id', required: true, autocomplete: 'off', spellcheck: 'false', placeholder: 'tinycloud:pkh:eip155:1:0x…:default' })
  const go = async (space) => {
    const done = await host(space)
    if (done !== null) location.hash = '#/spaces/' + encodeURIComponent(done)
  }
  show(main, h('h1', {}, 'Host a Space'), h('p', { class: 'lead' }, 'The owner of a Space signs a text by which this node becomes one of its hosts. You see the text before it is signed.'),
    h('section', { class: 'card' }, h('h2', {}, 'One of your own'),
      hasWallet()
        ? form({ id: 'own' }, field('Name of the Space', name, 'Apps use “default” unless they say otherwise. A Space is made by its first host.'), 'Ask the wallet',
          async () => go(`tinycloud:pkh:eip155:1:${await account()}:${name.value.trim()}`))
        : h('p', { class: 'quiet' }, 'This browser has no wallet (window.ethereum). Give the id of the Space below, and sign its text where the wallet is.')),
    h('section', { class: 'card' }, h('h2', {}, 'Any Space, by its id'), form({ id: 'any' }, field('Space', id), 'Show the text', () => go(id.value.trim()))))
  return { refresh: async () => {} }
}
