// SPDX-License-Identifier: Apache-2.0
// @grpc/grpc-js against cairnd and net_testd. usage: node client.js CHECK... with the addresses and files in the environment;
// tests/daemon/grpc_js_test.py sets them up. One line a check, exit 1 at the first that fails.
'use strict';
const assert = require('assert');
const fs = require('fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const env = process.env;
const definition = loader.loadSync('cairn/v1/symbolize.proto', {includeDirs: [env.PROTO_DIR], longs: String, enums: String, defaults: true});
const {Symbolizer} = grpc.loadPackageDefinition(definition).cairn.v1;
const METHOD = '/cairn.v1.Symbolizer/Symbolize';
const {status} = grpc;
const same = (bytes) => bytes;
const unlimited = {'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1};

function symbolizer(address, options = {}, credentials = grpc.credentials.createInsecure()) {
	return new Symbolizer(address, credentials, {...unlimited, ...options});
}

function ask(client, request, options = {}) {
	return new Promise((resolve, reject) => client.Symbolize(request, new grpc.Metadata(), options, (e, r) => (e ? reject(e) : resolve(r))));
}

function raw(client, path, bytes) {
	return new Promise((resolve, reject) => client.makeUnaryRequest(path, same, same, bytes, (e, r) => (e ? reject(e) : resolve(r))));
}

async function fails(code, promise) {
	try {
		await promise;
	} catch (e) {
		assert.strictEqual(e.code, code, String(e));
		return e.details;
	}
	assert.fail(`no error, ${status[code]} was expected`);
}

const id = (hex) => Buffer.from(hex, 'hex');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const unknown = {modules: [{fileId: id('00112233445566778899aabbccddeeff'), addresses: ['1']}]};
const known = () => ({modules: [{fileId: id(env.FILE_ID), addresses: JSON.parse(env.ADDRESSES)}]});
const pending = (ms) => ({modules: [{fileId: id(env.PENDING_ID), addresses: ['1']}], waitMs: ms});

const checks = {
	async unary() {
		const answer = await ask(symbolizer(env.CAIRND), known());
		const module = answer.modules[0];
		assert.strictEqual(module.status, 'MODULE_STATUS_OK');
		const names = module.frames.map((i) => answer.strings[answer.functions[answer.frames[i].function].name]);
		assert(names.includes('sample::innermost(int)') && names.includes('sample::outer(int)'), names.join());
		return `${module.frames.length} frames of ${module.resultStatus.length} addresses`;
	},
	async gzip() {
		const plain = await ask(symbolizer(env.CAIRND), known());
		const packed = await ask(symbolizer(env.CAIRND, {'grpc.default_compression_algorithm': 2}), known());
		assert.deepStrictEqual(packed, plain);
		await fails(status.UNIMPLEMENTED, ask(symbolizer(env.CAIRND, {'grpc.default_compression_algorithm': 1}), known()));
	},
	async concurrent() {
		const client = symbolizer(env.CAIRND), expected = await ask(client, known());
		for (const answer of await Promise.all(Array.from({length: 500}, () => ask(client, known()))))
			assert.deepStrictEqual(answer, expected);
	},
	async limit() {
		const packed = symbolizer(env.CAIRND, {'grpc.default_compression_algorithm': 2});
		const details = await fails(status.RESOURCE_EXHAUSTED, raw(packed, METHOD, Buffer.alloc((64 << 20) + 1)));
		// With so much in its hands node 20 resets the stream itself when our answer comes; a RST_STREAM of ours right behind the
		// answer would leave the call hanging for ever.
		await fails(status.RESOURCE_EXHAUSTED, raw(symbolizer(env.CAIRND), METHOD, Buffer.alloc((64 << 20) + 1)));
		return details;
	},
	async errors() {
		const client = symbolizer(env.CAIRND);
		await fails(status.INVALID_ARGUMENT, raw(client, METHOD, Buffer.from([0x0a, 0xff])));
		return await fails(status.UNIMPLEMENTED, raw(client, '/cairn.v1.Symbolizer/None', Buffer.alloc(0)));
	},
	async keepalive() {
		const client = symbolizer(env.CAIRND, {'grpc.keepalive_time_ms': 100, 'grpc.keepalive_timeout_ms': 1000, 'grpc.keepalive_permit_without_calls': 1});
		await ask(client, unknown);
		await sleep(1500);
		await ask(client, unknown);
	},
	async deadline() {
		const begin = Date.now();
		await fails(status.DEADLINE_EXCEEDED, ask(symbolizer(env.PENDING), pending(20000), {deadline: Date.now() + 400}));
		assert(Date.now() - begin < 5000);
		const call = symbolizer(env.PENDING).Symbolize(pending(20000), () => {});
		call.cancel();
	},
	// The test stops cairnd when it reads "waiting".
	async drain() {
		const client = symbolizer(env.PENDING);
		await ask(client, pending(0));
		const late = ask(client, pending(30000));
		await sleep(300);
		console.log('waiting');
		assert.strictEqual((await late).modules[0].status, 'MODULE_STATUS_PENDING');
		return await fails(status.UNAVAILABLE, ask(client, unknown, {deadline: Date.now() + 5000}));
	},
	async tls() {
		const ca = fs.readFileSync(env.CA);
		const address = env.TLS;
		await ask(symbolizer(address, {}, grpc.credentials.createSsl(ca)), unknown);
		await fails(status.UNAVAILABLE, ask(symbolizer(address, {}, grpc.credentials.createSsl()), unknown, {deadline: Date.now() + 5000}));
	},
	async bidirectional() {
		const client = new grpc.Client(env.TESTD, grpc.credentials.createInsecure(), unlimited);
		const call = client.makeBidiStreamRequest('/test.Test/Chat', same, same);
		const got = [];
		let said = 0;
		const say = () => (said < 200 ? call.write(Buffer.from(`word ${said++}`)) : call.end());
		call.on('data', (bytes) => {
			got.push(bytes.toString());
			say(); // the next word only after the answer to the last
		});
		say();
		const final = await new Promise((resolve, reject) => call.on('status', resolve).on('error', reject));
		assert.strictEqual(final.code, status.OK);
		assert.deepStrictEqual(got, Array.from({length: 200}, (_, i) => `word ${i}`));
	},
	async flood() {
		const client = new grpc.Client(env.TESTD, grpc.credentials.createInsecure(), unlimited);
		const call = client.makeServerStreamRequest('/test.Test/Flood', same, same, Buffer.from('20000'));
		let bytes = 0;
		for await (const message of call)
			bytes += message.length;
		assert.strictEqual(bytes, 200000000);
		return `${bytes} bytes`;
	},
};

async function main() {
	for (const name of process.argv.slice(2)) {
		const words = await checks[name]();
		console.log(`ok ${name}${words ? ': ' + words : ''}`);
	}
	process.exit(0);
}

main().catch((e) => {
	console.log('FAIL', e);
	process.exit(1);
});
