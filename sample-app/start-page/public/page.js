import { Api } from './api.js';
import { Log } from './log.js';

const form = document.querySelector('#order');
const { client, denomination, quantity, key } = form.elements;
const log = new Log(document);
const clients = await (await fetch('/start-page/clients.json')).json();
client.append(...clients.map(({ name, apiKey }) => new Option(`${name} (${apiKey})`, apiKey)));

/** What each button does with an order and its key. */
const actions = {
  place: (order) => send(order),
  double: (order) => Promise.all([send(order), send(order)]),
  lose: async (order) => {
    await send(order, { loseResponse: true });
    await send(order);
  },
  change: (order) => send({ ...order, quantity: order.quantity + 1 }),
};

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const order = {
    product_id: 123,
    denomination: Number(denomination.value),
    quantity: Number(quantity.value),
  };
  await actions[event.submitter?.dataset.action ?? 'place'](order);
  await showWallet();
});
document.querySelector('#new-key').addEventListener('click', chooseKey);
client.addEventListener('change', showWallet);

chooseKey();
await showWallet();

function chooseKey() {
  key.value = `order-${crypto.randomUUID()}`;
}

function api() {
  return new Api(clients.find(({ apiKey }) => apiKey === client.value));
}

async function send(order, options) {
  log.add(key.value, order, await api().order(key.value, order, options));
}

async function showWallet() {
  const [wallet, orders] = await Promise.all([api().wallet(), api().orders()]);
  log.showWallet(wallet, orders.length);
}
