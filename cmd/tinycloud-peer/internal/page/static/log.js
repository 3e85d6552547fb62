import { button, h, show, update } from './dom.js'
import { get } from './api.js'
import { ago, short } from './format.js'

/** eventList shows lines of the log. */
export function eventList(list, links = true) {
  if (list.length === 0) return h('p', { class: 'quiet' }, 'Nothing yet.')
  return h('ol', { class: 'events' }, list.map((e) => h('li', { class: 'event ' + e.level.toLowerCase() },
    ago(e.at), h('span', { class: 'level' }, e.level), h('span', {}, e.text,
      links && e.space !== '' && [' ', h('a', { href: '#/spaces/' + encodeURIComponent(e.space) }, short(e.space, 24, 12))],
      Object.entries(e.details).filter(([k]) => k !== 'part').map(([k, v]) => [' ', h('span', { class: 'detail' }, h('b', {}, k), ' ', short(v, 60, 20))])))))
}

export function log(main, signal) {
  const list = h('div', {})
  const level = h('select', { id: 'level', onchange: () => read(null) },
    h('option', { value: 'INFO' }, 'Everything'), h('option', { value: 'WARN' }, 'Warnings and errors'))
  const older = button('Earlier', () => read(page.before), { id: 'older' })
  const newest = button('Newest', () => read(null), { id: 'newest' })
  let page = { events: [], before: 0 }
  let from = null
  const read = async (before) => {
    from = before
    page = await get(`/admin/events?limit=50&level=${level.value}${before ? '&before=' + before : ''}`, signal)
    update(list, page.events, () => eventList(page.events))
    older.hidden = !page.before
    newest.hidden = from === null
  }
  show(main, h('h1', {}, 'Log'), h('p', { class: 'lead' }, 'What the node told since it started, the last 512 lines of it.'),
    h('section', { class: 'card' }, h('div', { class: 'toolbar' }, h('label', { for: 'level' }, 'Show'), level), list, h('div', { class: 'actions' }, older, newest)))
  return { refresh: () => (from === null ? read(null) : undefined) }
}
