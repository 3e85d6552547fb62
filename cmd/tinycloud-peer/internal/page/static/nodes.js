import { button, copyable, field, form, h, show, table, toast, update } from './dom.js'
import { call, get } from './api.js'
import { ago, short } from './format.js'
import { confirm } from './wallet.js'

export function nodes(main, signal) {
  const list = h('div', { id: 'nodes' })
  const invite = h('div', { id: 'invite', 'aria-live': 'polite' })
  const text = h('input', { type: 'text', id: 'pair-text', required: true, autocomplete: 'off', spellcheck: 'false', placeholder: 'An invite, or /ip4/…/p2p/…' })
  const refresh = async () => update(list, await get('/admin/nodes', signal), (all) => showNodes(all, refresh))
  show(main, h('h1', {}, 'Nodes'), h('p', { class: 'lead' }, 'Paired nodes ask each other about every Space that either comes to host, so that no Space has to be joined by hand. Pairing gives no rights to data.'),
    h('section', { class: 'card' }, h('h2', {}, 'Paired nodes'), list),
    h('section', { class: 'card' }, h('h2', {}, 'Invite another node'), h('p', {}, 'The invite is one line, for one node, good for 24 hours. On the other node: ', h('code', {}, 'tinycloud-peer pair INVITE'), ', or its page.'),
      h('div', { class: 'actions' }, button('Make an invite', async () => showInvite(invite, await call('POST', '/admin/invites', { expires: '24h', qr: true })), { class: 'primary', id: 'make-invite' })), invite),
    h('section', { class: 'card' }, h('h2', {}, 'Pair with a node'), form({ id: 'pair' }, field('Invite, or address of a node', text, 'With an address alone only this node asks the other. Pair nodes that you trust: one that is asked can test guesses of Space ids.'), 'Pair', async () => {
      const value = text.value.trim().replace(/\s+/g, '')
      const node = await call('POST', '/admin/nodes', value.startsWith('/') ? { addr: value } : { invite: value })
      text.value = ''
      toast(node.back ? 'Paired: the two ask each other.' : 'Paired: this node asks the other.')
      await refresh()
    })))
  return { refresh }
}

function showInvite(place, v) {
  show(place, h('p', {}, 'It works once, and expires ', ago(v.expires), '. Whoever has it may use it.'), copyable(v.invite, 'the invite'),
    h('img', { class: 'qr', src: v.qr, alt: 'The invite as a QR code' }))
}

function showNodes(all, refresh) {
  if (all.length === 0) return h('p', { class: 'quiet' }, 'None yet.')
  return table('Nodes that are asked', ['Node', 'From', 'Asks back', 'Answers', 'Heard', ''], all.slice(0, 200).map((v) => [
    v.alias ? h('span', { title: v.peer }, v.alias) : h('code', { title: v.peer }, short(v.peer, 10, 8)), v.source, v.back ? 'yes' : 'no', v.silent ? ['not since ', ago(v.silent)] : v.heard ? 'yes' : 'not asked yet', ago(v.heard),
    v.source === 'paired' && button('Unpair', async () => {
      if (!(await confirm('Unpair a node', `This node asks ${v.alias ? `${v.alias}, ${v.peer},` : v.peer} no more. Spaces that both host go on being replicated.`, 'Unpair'))) return
      await call('DELETE', '/admin/nodes/' + encodeURIComponent(v.peer))
      toast('Unpaired.')
      await refresh()
    }, { class: 'small', 'data-key': 'unpair ' + v.peer, 'aria-label': `Unpair ${v.alias || v.peer}` }),
  ]))
}
