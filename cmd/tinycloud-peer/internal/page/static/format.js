import { h } from './dom.js'

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

export function size(bytes) {
  let n = bytes
  let unit = 0
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024
    unit++
  }
  return `${unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`
}

/** parseSize reads bytes, or such as 10 MiB or 1.5 GB; NaN for what is none. */
export function parseSize(text) {
  const m = /^\s*(\d+(?:\.\d+)?)\s*(?:([KMGTP])(i?)B?|B)?\s*$/i.exec(text)
  if (m === null) return NaN
  const power = m[2] ? 'KMGTP'.indexOf(m[2].toUpperCase()) + 1 : 0
  return Math.round(Number(m[1]) * (m[3] ? 1024 : 1000) ** power)
}

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds))
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h`
  return `${Math.floor(s / 86400)} days`
}

const agoText = (at) => {
  const s = (Date.now() - Date.parse(at)) / 1000
  return s < -1 ? `in ${span(-s)}` : s < 2 ? 'now' : `${span(s)} ago`
}

/** ago is a time as what is between it and now, which goes on. */
export function ago(at, none = 'never') {
  if (!at) return none
  return h('time', { datetime: at, title: new Date(at).toLocaleString(), 'data-ago': true }, agoText(at))
}

/** tick brings the times up to date. */
export function tick() {
  for (const t of document.querySelectorAll('time[data-ago]')) t.textContent = agoText(t.getAttribute('datetime'))
}

/** short cuts the middle out of an id. */
export const short = (id, head = 12, tail = 6) => (id.length <= head + tail + 1 ? id : `${id.slice(0, head)}…${id.slice(-tail)}`)

/** spaceParts are the name and the owner of a Space's id. */
export function spaceParts(id) {
  const cut = id.lastIndexOf(':')
  return { name: id.slice(cut + 1), owner: id.slice('tinycloud:'.length, cut) }
}

/** accountOf is the Ethereum account that owns a Space, null for another owner. */
export function accountOf(id) {
  const m = /^tinycloud:pkh:eip155:\d+:(0x[0-9a-fA-F]{40}):/.exec(id)
  return m === null ? null : m[1]
}

/** stateOf is how a Space is, in a word or two, as the command line says it, with how bad that is. */
export function stateOf(v) {
  if (v.state === 'imported') return ['imported', 'idle']
  if (v.standing === 'removed' || v.standing === 'expired') return [v.standing, 'bad']
  if (v.standing === 'none') return ['no host', 'idle']
  if (v.state === 'joining') return ['joining', 'busy']
  if (v.overLimit) return ['over limit', 'bad']
  if (v.activity === 'resting' || v.activity === 'elsewhere' || (v.activity === 'asleep' && v.state === 'synced')) return [v.activity, 'idle']
  return [v.state, 'good']
}

export const badge = ([text, kind]) => h('span', { class: 'badge ' + kind }, text)

export const count = (n) => n.toLocaleString('en')

export const plural = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`
