import { h, svg } from './dom.js'

const W = 160
const H = 36

/** sparkline draws values, the oldest first, with what the last one is. */
export function sparkline(name, values, format) {
  const last = values.length === 0 ? 0 : values[values.length - 1]
  const top = Math.max(...values, 1e-9)
  const low = Math.min(...values, 0)
  const x = (i) => (values.length < 2 ? W : (i * W) / (values.length - 1))
  const y = (v) => H - 2 - ((v - low) / (top - low || 1)) * (H - 4)
  const line = values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(' ')
  return h('figure', { class: 'spark' },
    h('figcaption', {}, h('span', {}, name), h('strong', {}, format(last))),
    svg('svg', { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${name}: now ${format(last)}, at most ${format(Math.max(...values, 0))}` },
      values.length > 1 && svg('polygon', { class: 'area', points: `0,${H} ${line} ${W},${H}` }),
      values.length > 1 && svg('polyline', { class: 'line', points: line })))
}
