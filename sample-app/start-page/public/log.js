/** Shows what was asked and answered, the newest first. */
export class Log {
  #requests = 0;
  #replays = 0;
  #document;

  constructor(document) {
    this.#document = document;
  }

  add(key, { denomination, quantity }, outcome) {
    this.#requests += 1;
    if (outcome.replayed) this.#replays += 1;
    this.#show('#requests', this.#requests);
    this.#show('#replays', this.#replays);
    this.#document.querySelector('#empty').hidden = true;
    const { kind, text } = describe(outcome);
    const row = this.#document.createElement('tr');
    row.dataset.kind = kind;
    row.append(
      this.#cell(this.#requests),
      this.#cell(key.length > 20 ? `${key.slice(0, 19)}…` : key, 'code', key),
      this.#cell(`${quantity} × ${denomination}.00`),
      this.#cell(text, 'span', undefined, `answer ${kind}`),
      this.#cell(outcome.id?.slice(0, 8) ?? '', 'code', outcome.id),
      this.#cell(outcome.milliseconds, 'span'),
    );
    row.lastChild.className = 'number';
    this.#document.querySelector('#log').prepend(row);
  }

  showWallet({ balance, currency }, orders) {
    this.#show('#orders', orders);
    const text = `${balance} ${currency}`;
    const element = this.#document.querySelector('#balance');
    if (element.textContent === text) return;
    element.textContent = text;
    element.classList.remove('changed');
    // Reading the layout makes the animation begin anew.
    void element.offsetWidth;
    element.classList.add('changed');
  }

  #show(selector, value) {
    this.#document.querySelector(selector).textContent = value;
  }

  #cell(text, tag = 'span', title, className = '') {
    const content = Object.assign(this.#document.createElement(tag), { textContent: text, className });
    if (title) content.title = title;
    const cell = this.#document.createElement('td');
    cell.append(content);
    return cell;
  }
}

function describe({ lost, status, replayed, error }) {
  if (lost) return { kind: 'lost', text: 'response lost' };
  if (replayed) return { kind: 'replay', text: `${status} replayed` };
  return status < 300
    ? { kind: 'first', text: `${status} created` }
    : { kind: 'refused', text: `${status} ${error}` };
}
