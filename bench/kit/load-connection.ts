import { connect, type Socket } from 'node:net';

/** An answer, its body as text. */
export interface Answer {
  readonly status: number;
  readonly body: string;
}

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

const CONTENT_LENGTH = /\r\ncontent-length: *(\d+)/i;

/** One keep-alive connection with one request at a time: just enough HTTP for the answers that the benchmarks get. */
export class Connection {
  #received = '';
  #waiting: Waiting | undefined;
  #failure: Error | undefined;

  private constructor(private readonly socket: Socket) {
    socket.setNoDelay(true);
    // Bodies are ASCII, so that characters count as bytes.
    socket.setEncoding('latin1');
    socket.on('data', (chunk: string) => this.#read(chunk));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('The application closed the connection')));
  }

  static open(port: number): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1');
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new Connection(socket));
      });
    });
  }

  exchange(text: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#failure) {
        reject(this.#failure);
        return;
      }
      this.#waiting = { resolve, reject };
      this.socket.write(text, 'latin1');
    });
  }

  close(): void {
    this.socket.destroy();
  }

  #read(chunk: string): void {
    this.#received += chunk;
    const end = this.#received.indexOf('\r\n\r\n');
    if (end < 0) return;
    const head = this.#received.slice(0, end);
    const length = CONTENT_LENGTH.exec(head)?.[1];
    if (length === undefined) {
      this.#fail(new Error(`Expected Content-Length in the answer:\n${head}`));
      return;
    }
    const complete = end + 4 + Number(length);
    if (this.#received.length < complete) return;
    const body = this.#received.slice(end + 4, complete);
    this.#received = this.#received.slice(complete);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting === undefined) {
      this.#fail(new Error('An answer came that nobody had asked for'));
      return;
    }
    waiting.resolve({ status: Number(head.slice(9, 12)), body });
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }
}
