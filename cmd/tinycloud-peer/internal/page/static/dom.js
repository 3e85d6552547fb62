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
