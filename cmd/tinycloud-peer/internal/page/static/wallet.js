import { $, acting, button, field, h, show, toast } from './dom.js'
import { call } from './api.js'

const hex = (text) => '0x' + [...new TextEncoder().encode(text)].map((b) => b.toString(16).padStart(2, '0')).join('')

export const hasWallet = () => typeof window.ethereum?.request === 'function'

async function ask(method, params) {
  try {
    return await window.ethereum.request({ method, params })
  } catch (e) {
    throw new Error(e?.code === 4001 ? 'The wallet was not allowed to.' : `The wallet says: ${e?.message ?? e}`)
  }
}

/** account asks the wallet for its account. */
export async function account() {
  if (!hasWallet()) throw new Error('This browser has no wallet. Write the id of the Space, and sign its text elsewhere.')
  const accounts = await ask('eth_requestAccounts', [])
  if (!Array.isArray(accounts) || typeof accounts[0] !== 'string') throw new Error('The wallet shows no account.')
  return accounts[0]
}

/**
 * sign shows the exact text, has the wallet sign it, and posts it with its signature. It returns the node's answer, null
 * when nothing was signed.
 */
export function sign({ title, explain, text, owner, path, done }) {
  const dialog = $('dialog')
  return new Promise((resolve) => {
    let answer = null
    const post = async (signature) => {
      answer = await call('POST', path, { siwe: text, signature })
      toast(done)
      dialog.close()
    }
    const wallet = button('Sign in the wallet', async () => {
      const signer = await account()
      if (owner && signer.toLowerCase() !== owner.toLowerCase()) throw new Error(`The wallet shows ${signer}, and the owner of the Space is ${owner}: choose that account there.`)
      await post(await ask('personal_sign', [hex(text), signer]))
    }, { class: 'primary', id: 'sign' })
    const pasted = h('input', { type: 'text', name: 'signature', placeholder: '0x…', autocomplete: 'off', spellcheck: 'false' })
    const send = h('button', { type: 'submit' }, 'Use this signature')
    const elsewhere = h('details', { open: !hasWallet() }, h('summary', {}, 'The wallet is elsewhere'),
      h('p', {}, 'Have the owner’s wallet sign the text with personal_sign, without a line break at its end.'), button('Copy the text', async () => {
        await navigator.clipboard.writeText(text)
        toast('Copied the text.')
      }, { class: 'small' }),
      h('form', { onsubmit: (e) => acting(send, () => post(pasted.value.trim()))(e) }, field('Signature', pasted), h('div', { class: 'actions' }, send)))
    show(dialog, h('h2', { id: 'dialog-title' }, title), h('p', {}, explain),
      h('p', { class: 'hint' }, 'The exact text that is signed:'), h('pre', { tabindex: '0', id: 'signed-text' }, text),
      h('div', { class: 'actions' }, hasWallet() && wallet, button('Cancel', () => dialog.close())), elsewhere)
    dialog.addEventListener('close', () => resolve(answer), { once: true })
    dialog.showModal()
  })
}

/** confirm asks whether something is meant. */
export function confirm(title, explain, yes) {
  const dialog = $('dialog')
  return new Promise((resolve) => {
    let sure = false
    show(dialog, h('h2', { id: 'dialog-title' }, title), h('p', {}, explain), h('div', { class: 'actions' },
      button(yes, () => {
        sure = true
        dialog.close()
      }, { class: 'danger', id: 'confirm' }), button('Cancel', () => dialog.close())))
    dialog.addEventListener('close', () => resolve(sure), { once: true })
    dialog.showModal()
  })
}
