import { $, h, show } from './dom.js'
import { forget, get, loggedIn, login } from './api.js'

async function start() {
  const code = new URLSearchParams(location.hash.slice(1)).get('code')
  if (code !== null) {
    history.replaceState(null, '', '/') // the code is used up, and stands in no history
    try {
      await login(code)
    } catch (e) {
      return ask(e.message)
    }
  }
  if (!loggedIn()) return ask()
  try {
    const spaces = await get('/admin/spaces')
    show($('main'), h('h1', {}, 'Spaces'), h('ul', { id: 'spaces' }, spaces.map((s) => h('li', {}, s.space, ' ', s.state))))
  } catch (e) {
    if (e.status === 401) {
      forget()
      return ask()
    }
    show($('main'), h('p', { role: 'alert' }, e.message))
  }
}

/** ask says how to log in. */
function ask(why) {
  show($('main'), h('h1', {}, 'Log in'), why && h('p', { role: 'alert', class: 'alert' }, why),
    h('p', {}, 'On the machine of the node, run ', h('code', {}, 'tinycloud-peer page'), ' and open the link that it prints.'))
}

start()
