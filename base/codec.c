// SPDX-License-Identifier: Apache-2.0
/*
 * Several libraries behind one interface, and one rule: output is counted before it is believed.
 *
 * A stream keeps three facts: what it may still put out, whether its input stands where a stream may end (at_end), and
 * the library's state. codec_stream_feed offers the library a piece of the output buffer that is at most one byte larger
 * than what is allowed, so that "exactly the limit" passes, one byte more is seen, and a bomb costs no more than a piece.
 *
 *             whole input, size known      else
 *   zlib      libdeflate                   zlib's inflate
 *   gzip      zlib's inflate               zlib's inflate, reset at each member (RFC 1952, 2.2)
 *   zstd      ZSTD_decompressDCtx          ZSTD_decompressStream (goes on to the next frame by itself)
 *   xz        liblzma                      liblzma, concatenated streams, under a memory limit
 *   lzma      liblzma                      liblzma, one stream, under the same limit
 *   lz4       codec_lz4.c                  codec_lz4.c
 *
 * Memory that input can make a decoder take: 32 KiB for deflate; CODEC_WINDOW_MAX for zstd (what `zstd --ultra -22`
 * asks for); CODEC_LZMA_MAX for xz and lzma (a dictionary of 128 MiB, which Linux kernels are packed with from 6.12 on, and the
 * decoder); 17 MiB for lz4.
 */
#include "base/codec.h"

#include "base/codec_lz4.h"

#include <libdeflate.h>
#include <limits.h>
#include <lzma.h>
#include <pthread.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum {
	CODEC_PIECE_BYTES = 128 * 1024,
	CODEC_WINDOW_LOG_MAX = 27,
	CODEC_WINDOW_MAX = 1 << CODEC_WINDOW_LOG_MAX,
	CODEC_LZMA_MAX = CODEC_WINDOW_MAX + (4 << 20),
};

struct codec_stream {
	enum codec codec;
	bool at_end; /* the input may end here */
	bool dead;   /* an error was returned: nothing more can be fed */
	uint64_t left; /* bytes that may still be put out */
	z_stream zlib;
	ZSTD_DCtx *zstd;
	lzma_stream lzma;
	struct codec_lz4 *lz4;
};

static const char *const codec_names[] = {[CODEC_NONE] = "plain",
	[CODEC_ZLIB] = "zlib",
	[CODEC_GZIP] = "gzip",
	[CODEC_ZSTD] = "zstd",
	[CODEC_XZ] = "xz",
	[CODEC_LZMA] = "lzma",
	[CODEC_LZ4] = "lz4"};

const char *codec_name(enum codec codec)
{
	return codec_names[codec];
}

static struct err *damaged(enum codec codec, const char *detail)
{
	return err_new(ERR_FORMAT, "%s data is damaged: %s", codec_names[codec], detail ? detail : "no detail");
}

enum codec codec_detect(const void *bytes, size_t len)
{
	static const struct {
		enum codec codec;
		uint8_t len;
		uint8_t bytes[6];
	} magics[] = {
		{CODEC_GZIP, 3, {0x1f, 0x8b, 8}},
		{CODEC_ZSTD, 4, {0x28, 0xb5, 0x2f, 0xfd}},
		{CODEC_XZ, 6, {0xfd, '7', 'z', 'X', 'Z', 0}},
		{CODEC_LZMA, 3, {0x5d, 0, 0}}, /* no magic: the usual lc, lp, pb and a dictionary of whole 64 KiB */
		{CODEC_LZ4, 4, {0x04, 0x22, 0x4d, 0x18}},
		{CODEC_LZ4, 4, {0x02, 0x21, 0x4c, 0x18}}, /* legacy */
	};

	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		if (len >= magics[i].len && memcmp(bytes, magics[i].bytes, magics[i].len) == 0)
			return magics[i].codec;
	return CODEC_NONE;
}

static struct err *step_none(struct codec_stream *stream, struct codec_io *io)
{
	size_t len = io->in_len < io->out_len ? io->in_len : io->out_len;

	memcpy(io->out, io->in, len);
	*io = (struct codec_io){io->in + len, io->in_len - len, io->out + len, io->out_len - len};
	stream->at_end = true;
	return NULL;
}

static struct err *step_zlib(struct codec_stream *stream, struct codec_io *io)
{
	z_stream *z = &stream->zlib;

	if (stream->at_end && io->in_len > 0) {
		if (stream->codec == CODEC_ZLIB)
			return damaged(stream->codec, "bytes after its end");
		if (inflateReset(z) != Z_OK)
			return err_new(ERR_INTERNAL, "zlib cannot start a gzip member");
		stream->at_end = false;
	}
	if (stream->at_end)
		return NULL;
	/* zlib counts in 32 bits; the loop of the caller comes again. */
	uInt in_len = io->in_len < UINT_MAX ? (uInt)io->in_len : UINT_MAX;
	uInt out_len = io->out_len < UINT_MAX ? (uInt)io->out_len : UINT_MAX;
	z->next_in = (Bytef *)(uintptr_t)io->in;
	z->avail_in = in_len;
	z->next_out = io->out;
	z->avail_out = out_len;
	int result = inflate(z, Z_NO_FLUSH);
	io->in += in_len - z->avail_in;
	io->in_len -= in_len - z->avail_in;
	io->out += out_len - z->avail_out;
	io->out_len -= out_len - z->avail_out;
	if (result == Z_MEM_ERROR)
		return err_nomem();
	if (result == Z_STREAM_END)
		stream->at_end = true;
	else if (result == Z_NEED_DICT)
		return damaged(stream->codec, "it needs a dictionary");
	else if (result != Z_OK && result != Z_BUF_ERROR)
		return damaged(stream->codec, z->msg);
	return NULL;
}

static struct err *step_zstd(struct codec_stream *stream, struct codec_io *io)
{
	ZSTD_inBuffer in = {io->in, io->in_len, 0};
	ZSTD_outBuffer out = {io->out, io->out_len, 0};

	/* Without input, asking after the end of a frame would begin another one. */
	if (stream->at_end && io->in_len == 0)
		return NULL;
	size_t result = ZSTD_decompressStream(stream->zstd, &out, &in);
	*io = (struct codec_io){io->in + in.pos, in.size - in.pos, io->out + out.pos, out.size - out.pos};
	if (!ZSTD_isError(result)) {
		stream->at_end = result == 0;
		return NULL;
	}
	switch (ZSTD_getErrorCode(result)) {
	case ZSTD_error_frameParameter_windowTooLarge:
		return err_new(ERR_LIMIT, "zstd data needs a window over %d bytes", CODEC_WINDOW_MAX);
	case ZSTD_error_memory_allocation:
		return err_nomem();
	default:
		return damaged(CODEC_ZSTD, ZSTD_getErrorName(result));
	}
}

static struct err *lzma_error(enum codec codec, lzma_ret result)
{
	switch (result) {
	case LZMA_MEM_ERROR:
		return err_nomem();
	case LZMA_MEMLIMIT_ERROR:
		return err_new(ERR_LIMIT, "%s data needs over %d bytes of memory", codec_names[codec],
			CODEC_LZMA_MAX);
	case LZMA_FORMAT_ERROR:
		return damaged(codec, "not such a stream");
	case LZMA_OPTIONS_ERROR:
		return err_new(ERR_FORMAT, "%s data uses options that liblzma does not know", codec_names[codec]);
	case LZMA_DATA_ERROR:
		return damaged(codec, "corrupt");
	case LZMA_BUF_ERROR:
		return damaged(codec, "cut short");
	default:
		return err_new(ERR_INTERNAL, "liblzma: error %d", (int)result);
	}
}

static struct err *step_lzma(struct codec_stream *stream, struct codec_io *io)
{
	lzma_stream *lzma = &stream->lzma;

	if (stream->at_end && io->in_len > 0)
		return damaged(stream->codec, "bytes after its end");
	lzma->next_in = io->in;
	lzma->avail_in = io->in_len;
	lzma->next_out = io->out;
	lzma->avail_out = io->out_len;
	lzma_ret result = lzma_code(lzma, LZMA_RUN);
	*io = (struct codec_io){lzma->next_in, lzma->avail_in, lzma->next_out, lzma->avail_out};
	/* LZMA_BUF_ERROR: neither input nor output moved, which is no error of the data. */
	stream->at_end = result == LZMA_STREAM_END; /* of .lzma only: an .xz stream may be followed by another */
	return result == LZMA_OK || result == LZMA_BUF_ERROR || stream->at_end ? NULL : lzma_error(stream->codec, result);
}

static struct err *step(struct codec_stream *stream, struct codec_io *io)
{
	switch (stream->codec) {
	case CODEC_NONE:
		break;
	case CODEC_ZLIB:
	case CODEC_GZIP:
		return step_zlib(stream, io);
	case CODEC_ZSTD:
		return step_zstd(stream, io);
	case CODEC_XZ:
	case CODEC_LZMA:
		return step_lzma(stream, io);
	case CODEC_LZ4:
		return codec_lz4_step(stream->lz4, io, &stream->at_end);
	}
	return step_none(stream, io);
}

static struct err *start(struct codec_stream *stream)
{
	switch (stream->codec) {
	case CODEC_NONE:
		stream->at_end = true;
		break;
	case CODEC_ZLIB:
	case CODEC_GZIP:
		/* 15: the largest window; plus 16: a gzip header instead of zlib's. */
		if (inflateInit2(&stream->zlib, stream->codec == CODEC_GZIP ? 15 + 16 : 15) != Z_OK)
			return err_nomem();
		break;
	case CODEC_ZSTD:
		stream->zstd = ZSTD_createDCtx();
		if (!stream->zstd)
			return err_nomem();
		if (ZSTD_isError(ZSTD_DCtx_setParameter(stream->zstd, ZSTD_d_windowLogMax, CODEC_WINDOW_LOG_MAX)))
			return err_new(ERR_INTERNAL, "libzstd refuses a window limit");
		break;
	case CODEC_XZ:
	case CODEC_LZMA: {
		lzma_ret result = stream->codec == CODEC_XZ ? lzma_stream_decoder(&stream->lzma, CODEC_LZMA_MAX, LZMA_CONCATENATED)
							    : lzma_alone_decoder(&stream->lzma, CODEC_LZMA_MAX);
		if (result != LZMA_OK)
			return lzma_error(stream->codec, result);
		break;
	}
	case CODEC_LZ4:
		return codec_lz4_create(&stream->lz4);
	}
	return NULL;
}

struct err *codec_stream_create(enum codec codec, uint64_t limit, struct codec_stream **ret)
{
	CLEANUP(codec_stream_destroyp) struct codec_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return err_nomem();
	stream->codec = codec;
	stream->left = limit;
	TRY(start(stream));
	*ret = TAKE_PTR(stream);
	return NULL;
}

/* One piece of output into @p out. @p more_ret: whether another step could give more. */
static struct err *feed_piece(struct codec_stream *stream, struct codec_io *io, struct buf *out, bool *more_ret)
{
	uint64_t allowed = stream->left < UINT64_MAX ? stream->left + 1 : stream->left;
	size_t piece = allowed < CODEC_PIECE_BYTES ? (size_t)allowed : CODEC_PIECE_BYTES;
	size_t in_before = io->in_len;

	TRY(buf_reserve(out, piece));
	io->out = out->data + out->len;
	io->out_len = piece;
	TRY(step(stream, io));
	size_t made = piece - io->out_len;
	if (made > stream->left) {
		out->len += (size_t)stream->left;
		return err_new(ERR_LIMIT, "%s data unpacks to more than the limit", codec_names[stream->codec]);
	}
	stream->left -= made;
	out->len += made;
	if (made == 0 && io->in_len == in_before && io->in_len > 0)
		return damaged(stream->codec, "it does not go on");
	*more_ret = io->in_len > 0 || io->out_len == 0;
	return NULL;
}

struct err *codec_stream_feed(struct codec_stream *stream, const void *in, size_t len, struct buf *out)
{
	struct codec_io io = {.in = in, .in_len = len};

	if (stream->dead)
		return damaged(stream->codec, "it failed before");
	for (bool more = len > 0; more;) {
		struct err *e = feed_piece(stream, &io, out, &more);
		if (e) {
			stream->dead = true;
			return e;
		}
	}
	return NULL;
}

static bool xz_may_end(struct codec_stream *stream)
{
	uint8_t none[1];

	stream->lzma.next_in = NULL;
	stream->lzma.avail_in = 0;
	stream->lzma.next_out = none;
	stream->lzma.avail_out = sizeof(none);
	return lzma_code(&stream->lzma, LZMA_FINISH) == LZMA_STREAM_END && stream->lzma.avail_out == sizeof(none);
}

struct err *codec_stream_finish(struct codec_stream *stream)
{
	bool ends = !stream->dead && (stream->codec == CODEC_XZ ? xz_may_end(stream) : stream->at_end);

	return ends ? NULL : damaged(stream->codec, "cut short");
}

void codec_stream_destroy(struct codec_stream *stream)
{
	if (!stream)
		return;
	(void)inflateEnd(&stream->zlib); /* harmless on one that was never started */
	ZSTD_freeDCtx(stream->zstd);
	lzma_end(&stream->lzma);
	codec_lz4_destroy(stream->lz4);
	free(stream);
}

void codec_stream_destroyp(struct codec_stream **stream)
{
	codec_stream_destroy(*stream);
}

static struct err *exact_zlib(const void *in, size_t in_len, void *out, size_t out_len)
{
	struct libdeflate_decompressor *decompressor = libdeflate_alloc_decompressor();
	uint8_t none[1];
	size_t used = 0;

	if (!decompressor)
		return err_nomem();
	enum libdeflate_result result = libdeflate_zlib_decompress_ex(
		decompressor, in, in_len, out_len > 0 ? out : none, out_len, &used, NULL);
	libdeflate_free_decompressor(decompressor);
	if (result == LIBDEFLATE_BAD_DATA)
		return damaged(CODEC_ZLIB, "corrupt or cut short");
	if (result != LIBDEFLATE_SUCCESS)
		return err_new(ERR_FORMAT, "zlib data does not unpack to the %zu bytes that it should", out_len);
	return used == in_len ? NULL : damaged(CODEC_ZLIB, "bytes after its end");
}

/*
 * Contexts of libzstd that a thread keeps: to make one, with all the pages that it touches first, costs more than to compress
 * what a column of a block has. One that grew past CONTEXT_KEPT_MAX is not kept.
 */
struct contexts {
	ZSTD_CCtx *compress;
	ZSTD_DCtx *decompress;
};

enum { CONTEXT_KEPT_MAX = 4 << 20 };

static _Thread_local struct contexts contexts;
static pthread_key_t contexts_key; /* frees them when their thread ends */
static pthread_once_t contexts_once = PTHREAD_ONCE_INIT;

static void free_contexts(void *arg)
{
	struct contexts *of = arg;

	ZSTD_freeCCtx(of->compress);
	ZSTD_freeDCtx(of->decompress);
	*of = (struct contexts){0};
}

static void make_contexts_key(void)
{
	(void)pthread_key_create(&contexts_key, free_contexts);
}

static ZSTD_CCtx *compress_context(void)
{
	(void)pthread_once(&contexts_once, make_contexts_key);
	(void)pthread_setspecific(contexts_key, &contexts);
	if (!contexts.compress)
		contexts.compress = ZSTD_createCCtx();
	else
		(void)ZSTD_CCtx_reset(contexts.compress, ZSTD_reset_session_and_parameters);
	return contexts.compress;
}

static ZSTD_DCtx *decompress_context(void)
{
	(void)pthread_once(&contexts_once, make_contexts_key);
	(void)pthread_setspecific(contexts_key, &contexts);
	if (!contexts.decompress)
		contexts.decompress = ZSTD_createDCtx();
	return contexts.decompress;
}

static struct err *exact_zstd(const void *in, size_t in_len, void *out, size_t out_len)
{
	ZSTD_DCtx *context = decompress_context();

	if (!context)
		return err_nomem();
	size_t result = ZSTD_decompressDCtx(context, out, out_len, in, in_len);
	if (ZSTD_isError(result))
		return damaged(CODEC_ZSTD, ZSTD_getErrorName(result));
	if (result != out_len || in_len == 0)
		return err_new(ERR_FORMAT, "zstd data unpacks to %zu bytes, not the %zu that it should", result, out_len);
	return NULL;
}

/* By the stream decoder, straight into the caller's bytes; one spare byte shows whether there would be more. */
static struct err *exact_stream(enum codec codec, const void *in, size_t in_len, void *out, size_t out_len)
{
	CLEANUP(codec_stream_destroyp) struct codec_stream *stream = NULL;
	uint8_t spare[1];
	struct codec_io io = {.in = in, .in_len = in_len, .out = out, .out_len = out_len};
	bool filled = out_len == 0;

	TRY(codec_stream_create(codec, UINT64_MAX, &stream));
	if (filled) {
		io.out = spare;
		io.out_len = sizeof(spare);
	}
	while (io.in_len > 0 || (io.out_len == 0 && !filled)) {
		if (io.out_len == 0) {
			filled = true;
			io.out = spare;
			io.out_len = sizeof(spare);
		}
		size_t in_before = io.in_len, out_before = io.out_len;
		TRY(step(stream, &io));
		if (filled && io.out_len == 0)
			return err_new(ERR_FORMAT, "%s data unpacks to more than the %zu bytes that it should",
				codec_names[codec], out_len);
		if (io.in_len > 0 && io.in_len == in_before && io.out_len == out_before)
			return damaged(codec, "it does not go on");
	}
	TRY(codec_stream_finish(stream));
	if (!filled && io.out_len > 0)
		return err_new(ERR_FORMAT, "%s data unpacks to %zu bytes, not the %zu that it should", codec_names[codec],
			out_len - io.out_len, out_len);
	return NULL;
}

struct err *codec_decompress_exact(enum codec codec, const void *in, size_t in_len, void *out, size_t out_len)
{
	switch (codec) {
	case CODEC_NONE:
		if (in_len != out_len)
			return err_new(ERR_FORMAT, "%zu bytes, not the %zu that there should be", in_len, out_len);
		if (in_len > 0)
			memcpy(out, in, in_len);
		return NULL;
	case CODEC_ZLIB:
		return exact_zlib(in, in_len, out, out_len);
	case CODEC_ZSTD:
		return exact_zstd(in, in_len, out, out_len);
	case CODEC_GZIP:
	case CODEC_XZ:
	case CODEC_LZMA:
	case CODEC_LZ4:
		break;
	}
	return exact_stream(codec, in, in_len, out, out_len);
}

struct err *codec_decompress(enum codec codec, const void *in, size_t in_len, size_t limit, struct buf *ret)
{
	CLEANUP(codec_stream_destroyp) struct codec_stream *stream = NULL;

	TRY(codec_stream_create(codec, limit, &stream));
	TRY(codec_stream_feed(stream, in, in_len, ret));
	return codec_stream_finish(stream);
}

struct err *codec_compress_zstd(const void *in, size_t in_len, int level, struct buf *ret)
{
	size_t bound = ZSTD_compressBound(in_len);

	if (ZSTD_isError(bound))
		return err_new(ERR_LIMIT, "%zu bytes are too much for one zstd frame", in_len);
	TRY(buf_reserve(ret, bound));
	ZSTD_CCtx *context = compress_context();
	if (!context)
		return err_nomem();
	(void)ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
	(void)ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
	size_t size = ZSTD_compress2(context, ret->data + ret->len, bound, in, in_len);
	if (ZSTD_sizeof_CCtx(context) > CONTEXT_KEPT_MAX) {
		ZSTD_freeCCtx(context);
		contexts.compress = NULL;
	}
	if (ZSTD_isError(size))
		return err_new(ERR_INTERNAL, "libzstd: %s", ZSTD_getErrorName(size));
	ret->len += size;
	return NULL;
}

struct err *codec_compress_gzip(const void *in, size_t in_len, int level, struct buf *ret)
{
	struct libdeflate_compressor *compressor = libdeflate_alloc_compressor(level);

	if (!compressor)
		return err_nomem();
	size_t bound = libdeflate_gzip_compress_bound(compressor, in_len);
	struct err *e = buf_reserve(ret, bound);
	if (!e)
		ret->len += libdeflate_gzip_compress(compressor, in, in_len, ret->data + ret->len, bound);
	libdeflate_free_compressor(compressor);
	return e;
}
