// What is asked of the node. Each request has the cookie, which no script sees, and the token of this origin.

const HEADER = 'TinyCloud-Page'
const TOKEN = 'token'

export class Refused extends Error {
  constructor(status, text, body) {
    super(text)
    this.status = status
    this.body = body
  }
}

export const loggedIn = () => localStorage.getItem(TOKEN) !== null

/** login shows the code of a link. */
export async function login(code) {
  const { token } = await call('POST', '/login', { code })
  localStorage.setItem(TOKEN, token)
}

export async function logout() {
  await call('POST', '/logout', {})
  forget()
}

export const forget = () => localStorage.removeItem(TOKEN)

function headers(body) {
  const h = { [HEADER]: localStorage.getItem(TOKEN) ?? '' }
  if (body !== undefined) h['Content-Type'] = 'application/json'
  return h
}

async function send(method, path, body, signal) {
  try {
    return await fetch(path, {
      method, signal, headers: headers(body), credentials: 'same-origin', redirect: 'error', cache: 'no-store',
      body: body === undefined ? undefined : JSON.stringify(body),
    })
  } catch (e) {
    if (e.name === 'AbortError') throw e
    throw new Refused(0, 'The node does not answer.', null)
  }
}

/** call asks the node and returns what it answers; a refusal is an exception with the node's words. */
export async function call(method, path, body, signal) {
  const resp = await send(method, path, body, signal)
  const text = await resp.text()
  let answer = null
  try {
    answer = text === '' ? null : JSON.parse(text)
  } catch {
    answer = { error: text }
  }
  if (!resp.ok) throw new Refused(resp.status, answer?.error || answer?.message || `The node answers ${resp.status}.`, answer)
  return answer
}

export const get = (path, signal) => call('GET', path, undefined, signal)

export const spacePath = (space) => '/admin/spaces/' + encodeURIComponent(space)

/**
 * live calls back with what the node tells: (kind, data). It ends with the signal, or throws when the stream does.
 */
export async function live(signal, back) {
  const resp = await send('GET', '/admin/live', undefined, signal)
  if (!resp.ok) throw new Refused(resp.status, `The node answers ${resp.status}.`, null)
  const reader = resp.body.pipeThrough(new TextDecoderStream()).getReader()
  back('open', null)
  let text = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) throw new Refused(0, 'The node ended the stream.', null)
    text += value
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const message = text.slice(0, end)
      text = text.slice(end + 2)
      const kind = /^event: (.*)$/m.exec(message)
      const data = /^data: (.*)$/m.exec(message)
      if (kind !== null && data !== null) back(kind[1], JSON.parse(data[1]))
    }
    if (text.length > 1 << 20) throw new Refused(0, 'The node sends too much.', null)
  }
}
