import { randomUUID } from 'node:crypto';
import { sendRequest, type HttpRequestHeaders, type HttpResponse } from './http.js';

/** A text field, or a file where it has a file name. */
export interface Part {
  readonly name: string;
  readonly content: string | Buffer;
  readonly filename?: string;
  /** Default: none for a text field, `text/plain` for a file. */
  readonly type?: string;
}

/** A text field. */
export function field(name: string, content: string): Part {
  return { name, content };
}

/** A file. */
export function file(name: string, content: string | Buffer, filename = 'a.txt', type = 'text/plain'): Part {
  return { name, content, filename, type };
}

/** The bytes of a form, as a browser sends them. */
export function multipartBody(parts: readonly Part[], boundary: string): Buffer {
  const chunks = parts.flatMap(({ name, content, filename, type }) => {
    const disposition = `form-data; name="${name}"${filename === undefined ? '' : `; filename="${filename}"`}`;
    const head = `--${boundary}\r\nContent-Disposition: ${disposition}\r\n`;
    return [`${head}${type === undefined ? '' : `Content-Type: ${type}\r\n`}\r\n`, content, '\r\n'];
  });
  return Buffer.concat([...chunks, `--${boundary}--\r\n`].map((chunk) => Buffer.from(chunk as string)));
}

/** Sends a form, with a new boundary each time as browsers do. */
export function postMultipart(
  url: string,
  parts: readonly Part[],
  headers: Readonly<Record<string, string>>,
): Promise<HttpResponse> {
  const boundary = `edge-${randomUUID()}`;
  const lines: HttpRequestHeaders = {
    ...headers,
    'Content-Type': `multipart/form-data; boundary=${boundary}`,
  };
  return sendRequest(url, { method: 'POST', headers: lines, body: multipartBody(parts, boundary) });
}
