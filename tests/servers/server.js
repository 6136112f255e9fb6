// The model server without a model of app.py, for Node's http, https and http2. Arguments: PORT KIND [CERT KEY], where KIND
// is http, https, h2c or h2. It keeps no record: the client's is the truth.
'use strict';

const fs = require('fs');

const [port, kind, cert, key] = process.argv.slice(2);
const MODEL = 'tiny';
let ids = 0;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function answer(response, status, value) {
  const body = Buffer.from(JSON.stringify(value));
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length });
  response.end(body);
}

function refuse(response, status, code, message) {
  answer(response, status, { error: { message, type: 'invalid_request_error', code } });
}

async function stream(response, asked, words, whole) {
  const event = (rest) => response.write(`data: ${JSON.stringify({ ...whole, ...rest })}\n\n`);
  const delta = (delta, finish = null) => event({ choices: [{ index: 0, delta, finish_reason: finish }] });
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  delta({ role: 'assistant', content: '' });
  await sleep(asked.prefill_ms || 0);
  for (let index = 0; index < asked.max_tokens; index++) {
    if (index) await sleep(asked.pace_ms || 0);
    delta({ content: ` ${words[index % words.length]}` });
  }
  delta({}, 'length');
  if (asked.stream_options && asked.stream_options.include_usage) {
    event({ choices: [], usage: usage(words.length, asked.max_tokens) });
  }
  response.end('data: [DONE]\n\n');
}

function usage(prompt, completion) {
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion };
}

async function complete(response, asked, words, whole) {
  await sleep((asked.prefill_ms || 0) + asked.max_tokens * (asked.pace_ms || 0));
  const content = Array.from({ length: asked.max_tokens }, (_, index) => words[index % words.length]).join(' ');
  const choice = { index: 0, message: { role: 'assistant', content }, finish_reason: 'length' };
  const object = 'chat.completion';
  answer(response, 200, { ...whole, object, choices: [choice], usage: usage(words.length, asked.max_tokens) });
}

async function handle(request, response) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const path = request.url.split('?')[0];
  if (path === '/health') return answer(response, 200, { status: 'ok' });
  if (path !== '/v1/chat/completions') return refuse(response, 404, 'not_found', `no such path: ${path}`);
  const body = Buffer.concat(parts).toString();
  let asked, words;
  try {
    asked = JSON.parse(body);
    words = asked.messages.flatMap((message) => message.content.split(' ').filter(Boolean));
  } catch (error) {
    return refuse(response, 400, 'invalid_request_error', `the body is no chat request: ${body.slice(0, 80)}`);
  }
  // Real servers quote what was asked in their messages, and so does this one.
  if (asked.model !== MODEL) return refuse(response, 404, 'model_not_found', `no ${asked.model} for ${words}`);
  const whole = { id: `chatcmpl-${++ids}`, object: 'chat.completion.chunk', created: 1, model: MODEL };
  return asked.stream ? stream(response, asked, words, whole) : complete(response, asked, words, whole);
}

const secure = cert && { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
const server = {
  http: () => require('http').createServer(handle),
  https: () => require('https').createServer(secure, handle),
  h2c: () => require('http2').createServer(handle),
  h2: () => require('http2').createSecureServer(secure, handle),
}[kind]();
server.keepAliveTimeout = 60000;
server.listen(Number(port), '127.0.0.1');
