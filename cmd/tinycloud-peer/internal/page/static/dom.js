// Elements are made here and nowhere else: texts become text nodes, never markup, for many of them are of strangers.

/** h makes an element: attributes, listeners (on…), and children that are nodes or texts; null and false are left out. */
export function h(tag, attrs = {}, ...children) {
  return fill(document.createElement(tag), attrs, children)
}

const SVG = 'http://www.w3.org/2000/svg'

/** svg is h for pictures. */
export function svg(tag, attrs = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attrs, children)
}

function fill(element, attrs, children) {
  for (const [name, value] of Object.entries(attrs)) {
    if (value === null || value === undefined || value === false) continue
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (name === 'value') element.value = value
    else element.setAttribute(name, value === true ? '' : String(value))
  }
  element.append(...children.flat(3).filter((c) => c !== null && c !== undefined && c !== false))
  return element
}

/** show puts children into an element, in place of what was there. */
export function show(element, ...children) {
  element.replaceChildren(...children.flat(3).filter((c) => c !== null && c !== undefined && c !== false))
}

/** $ finds the element of an id. */
export const $ = (id) => document.getElementById(id)

const shown = new WeakMap()

/**
 * update shows what build makes of data, unless that is shown already. Focus stays on the element with the same data-key.
 */
export function update(element, data, build) {
  const text = JSON.stringify(data)
  if (shown.get(element) === text) return
  shown.set(element, text)
  const key = element.contains(document.activeElement) ? document.activeElement.getAttribute('data-key') : null
  show(element, build(data))
  if (key !== null) [...element.querySelectorAll('[data-key]')].find((e) => e.getAttribute('data-key') === key)?.focus()
}

/** toast tells for some seconds what was done, or went wrong. */
export function toast(text, bad = false) {
  const t = h('p', { class: bad ? 'toast bad' : 'toast' }, text)
  $('toasts').append(t)
  while ($('toasts').childElementCount > 3) $('toasts').firstElementChild.remove()
  setTimeout(() => t.remove(), bad ? 12000 : 5000)
}

/** acting has a button that does something look busy, and tells what goes wrong. */
export function acting(button, work) {
  return async (event) => {
    event?.preventDefault()
    if (button.disabled) return
    button.disabled = true
    button.setAttribute('aria-busy', 'true')
    try {
      await work(event)
    } catch (e) {
      if (e.name !== 'AbortError') toast(e.message, true)
    } finally {
      button.disabled = false
      button.removeAttribute('aria-busy')
    }
  }
}

/** button makes one that does something. */
export function button(text, work, attrs = {}) {
  const b = h('button', { type: 'button', ...attrs }, text)
  b.addEventListener('click', acting(b, work))
  return b
}

/** field is a labelled control, with a hint below. */
export function field(label, control, hint) {
  const id = control.id || 'f' + Math.random().toString(36).slice(2)
  control.id = id
  if (hint) control.setAttribute('aria-describedby', id + '-hint')
  return h('div', { class: 'field' }, h('label', { for: id }, label), control, hint && h('p', { class: 'hint', id: id + '-hint' }, hint))
}

/** form does something when it is sent; its last button sends it. */
export function form(attrs, children, text, work) {
  const send = h('button', { type: 'submit', class: 'primary' }, text)
  const f = h('form', attrs, children, h('div', { class: 'actions' }, send))
  f.addEventListener('submit', acting(send, work))
  return f
}

/** table shows rows of cells; on a phone each row is a card, whose cells say what they are. */
export function table(caption, heads, rows) {
  return h('table', {}, h('caption', {}, caption),
    h('thead', {}, h('tr', {}, heads.map((t) => h('th', { scope: 'col' }, t)))),
    h('tbody', {}, rows.map((cells) => h('tr', {}, cells.map((c, i) => h('td', { 'data-label': heads[i] }, c))))))
}

/** facts is a list of names and values. */
export function facts(pairs) {
  return h('dl', { class: 'facts' }, pairs.filter(Boolean).map(([name, ...value]) => h('div', {}, h('dt', {}, name), h('dd', {}, ...value))))
}

/** copyable is a text with a button that copies it. */
export function copyable(text, what) {
  return h('span', { class: 'copyable' }, h('code', {}, text), button('Copy', async () => {
    await navigator.clipboard.writeText(text)
    toast(`Copied ${what}.`)
  }, { class: 'small', 'aria-label': `Copy ${what}`, 'data-key': 'copy ' + text }))
}
