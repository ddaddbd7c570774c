// SPDX-License-Identifier: Apache-2.0
#include "base/codec.h"

#include <criterion/criterion.h>
#include <lz4frame.h>
#include <lz4hc.h>
#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { PLAIN_BYTES = 300000 };

static const enum codec codecs[] = {CODEC_ZLIB, CODEC_GZIP, CODEC_ZSTD, CODEC_XZ, CODEC_LZMA, CODEC_LZ4};
static uint8_t plain[PLAIN_BYTES];
static uint8_t unpacked[PLAIN_BYTES + 1];

/* Compressible, but not a mere run. */
static void fill_plain(void)
{
	uint32_t state = 1;

	for (size_t i = 0; i < sizeof(plain); i++) {
		state = state * 1664525 + 1013904223;
		plain[i] = (uint8_t)("abcdefgh"[state >> 29]);
	}
}

TestSuite(codec, .init = fill_plain);

/* By the libraries' own compressors, so that each codec is checked against its reference. */
static void pack(enum codec codec, const void *bytes, size_t len, struct buf *ret)
{
	cr_assert_null(buf_reserve(ret, 2 * len + 1000));
	uint8_t *out = ret->data + ret->len;
	size_t room = ret->cap - ret->len, made = 0;

	if (codec == CODEC_ZSTD) {
		made = ZSTD_compress(out, room, bytes, len, 3);
		cr_assert_not(ZSTD_isError(made));
	} else if (codec == CODEC_XZ) {
		cr_assert_eq(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, NULL, bytes, len, out, &made, room), LZMA_OK);
	} else if (codec == CODEC_LZMA) {
		lzma_stream lzma = LZMA_STREAM_INIT;
		lzma_options_lzma options;
		cr_assert_not(lzma_lzma_preset(&options, 6));
		cr_assert_eq(lzma_alone_encoder(&lzma, &options), LZMA_OK);
		lzma.next_in = bytes;
		lzma.avail_in = len;
		lzma.next_out = out;
		lzma.avail_out = room;
		cr_assert_eq(lzma_code(&lzma, LZMA_FINISH), LZMA_STREAM_END);
		made = (size_t)lzma.total_out;
		lzma_end(&lzma);
	} else if (codec == CODEC_LZ4) {
		/* With a checksum: without one a changed byte is another text. */
		LZ4F_preferences_t preferences = {.frameInfo = {.contentChecksumFlag = LZ4F_contentChecksumEnabled}};
		made = LZ4F_compressFrame(out, room, bytes, len, &preferences);
		cr_assert_not(LZ4F_isError(made));
	} else if (codec == CODEC_NONE) {
		memcpy(out, bytes, len);
		made = len;
	} else {
		z_stream z = {0};
		cr_assert_eq(deflateInit2(&z, 6, Z_DEFLATED, codec == CODEC_GZIP ? 31 : 15, 8, Z_DEFAULT_STRATEGY), Z_OK);
		z.next_in = (Bytef *)(uintptr_t)bytes;
		z.avail_in = (uInt)len;
		z.next_out = out;
		z.avail_out = (uInt)room;
		cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
		made = z.total_out;
		deflateEnd(&z);
	}
	ret->len += made;
}

static void check_error(struct err *e, enum err_code code)
{
	cr_assert_not_null(e);
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	err_free(e);
}

static void check_ok(struct err *e)
{
	cr_assert_null(e, "%s", e ? err_message(e) : "");
}

Test(codec, unpacks_what_the_references_pack)
{
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		struct buf packed = {0}, out = {0};
		pack(codecs[i], plain, PLAIN_BYTES, &packed);
		check_ok(codec_decompress_exact(codecs[i], packed.data, packed.len, unpacked, PLAIN_BYTES));
		cr_assert_eq(memcmp(unpacked, plain, PLAIN_BYTES), 0);
		check_ok(codec_decompress(codecs[i], packed.data, packed.len, PLAIN_BYTES, &out));
		cr_assert_eq(out.len, PLAIN_BYTES);
		cr_assert_eq(memcmp(out.data, plain, PLAIN_BYTES), 0);
		buf_deinit(&packed);
		buf_deinit(&out);
	}
}

Test(codec, unpacks_nothing_from_packed_nothing)
{
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		struct buf packed = {0}, out = {0};
		pack(codecs[i], plain, 0, &packed);
		check_ok(codec_decompress_exact(codecs[i], packed.data, packed.len, unpacked, 0));
		check_ok(codec_decompress(codecs[i], packed.data, packed.len, 0, &out));
		cr_assert_eq(out.len, 0);
		check_error(codec_decompress_exact(codecs[i], packed.data, packed.len, unpacked, 1), ERR_FORMAT);
		buf_deinit(&packed);
		buf_deinit(&out);
	}
}

Test(codec, streams_byte_by_byte)
{
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		struct buf packed = {0}, out = {0};
		CLEANUP(codec_stream_destroyp) struct codec_stream *stream = NULL;
		pack(codecs[i], plain, 3000, &packed);
		check_ok(codec_stream_create(codecs[i], 3000, &stream));
		for (size_t at = 0; at < packed.len; at++)
			check_ok(codec_stream_feed(stream, packed.data + at, 1, &out));
		check_ok(codec_stream_feed(stream, NULL, 0, &out));
		check_ok(codec_stream_finish(stream));
		cr_assert_eq(out.len, 3000);
		cr_assert_eq(memcmp(out.data, plain, 3000), 0);
		buf_deinit(&packed);
		buf_deinit(&out);
	}
}

Test(codec, passes_plain_bytes_through_under_the_limit)
{
	struct buf out = {0};

	check_ok(codec_decompress(CODEC_NONE, plain, PLAIN_BYTES, PLAIN_BYTES, &out));
	cr_assert_eq(memcmp(out.data, plain, PLAIN_BYTES), 0);
	buf_deinit(&out);
	check_error(codec_decompress(CODEC_NONE, plain, PLAIN_BYTES, PLAIN_BYTES - 1, &out), ERR_LIMIT);
	cr_assert_eq(out.len, PLAIN_BYTES - 1);
	buf_deinit(&out);
	check_ok(codec_decompress(CODEC_NONE, "", 0, 0, &out));
	check_ok(codec_decompress_exact(CODEC_NONE, plain, 5, unpacked, 5));
	check_error(codec_decompress_exact(CODEC_NONE, plain, 5, unpacked, 4), ERR_FORMAT);
	buf_deinit(&out);
}

Test(codec, allows_exactly_the_limit_and_not_one_byte_more)
{
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		/* 128 KiB is the piece in which output is offered: the limit at, before and behind its edge. */
		static const size_t sizes[] = {1, 131071, 131072, 131073, 262144};
		for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
			struct buf packed = {0}, out = {0};
			pack(codecs[i], plain, sizes[s], &packed);
			check_ok(codec_decompress(codecs[i], packed.data, packed.len, sizes[s], &out));
			cr_assert_eq(out.len, sizes[s]);
			buf_deinit(&out);
			check_error(codec_decompress(codecs[i], packed.data, packed.len, sizes[s] - 1, &out), ERR_LIMIT);
			cr_assert_eq(out.len, sizes[s] - 1);
			buf_deinit(&out);
			buf_deinit(&packed);
		}
	}
}

Test(codec, stops_a_bomb_at_the_limit)
{
	enum { BOMB_BYTES = 64 << 20 };
	static uint8_t zeros[BOMB_BYTES];

	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		struct buf packed = {0}, out = {0};
		pack(codecs[i], zeros, BOMB_BYTES, &packed);
		check_error(codec_decompress(codecs[i], packed.data, packed.len, 1000, &out), ERR_LIMIT);
		cr_assert_eq(out.len, 1000);
		cr_assert_lt(out.cap, 1 << 20);
		check_error(codec_decompress_exact(codecs[i], packed.data, packed.len, unpacked, 1000), ERR_FORMAT);
		buf_deinit(&packed);
		buf_deinit(&out);
	}
}

Test(codec, joins_members_frames_and_streams)
{
	static const enum codec joinable[] = {CODEC_GZIP, CODEC_ZSTD, CODEC_XZ, CODEC_LZ4};

	for (size_t i = 0; i < ARRAY_SIZE(joinable); i++) {
		struct buf packed = {0}, out = {0};
		pack(joinable[i], plain, 1000, &packed);
		pack(joinable[i], plain, 0, &packed);
		pack(joinable[i], plain + 1000, 2000, &packed);
		check_ok(codec_decompress(joinable[i], packed.data, packed.len, 3000, &out));
		cr_assert_eq(memcmp(out.data, plain, 3000), 0);
		check_ok(codec_decompress_exact(joinable[i], packed.data, packed.len, unpacked, 3000));
		cr_assert_eq(memcmp(unpacked, plain, 3000), 0);
		out.len = 0;
		check_error(codec_decompress(joinable[i], packed.data, packed.len, 2999, &out), ERR_LIMIT);
		buf_deinit(&packed);
		buf_deinit(&out);
	}
}

Test(codec, rejects_trailing_garbage)
{
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		struct buf packed = {0}, out = {0};
		pack(codecs[i], plain, 1000, &packed);
		check_ok(buf_append(&packed, "garbage!", 8));
		check_error(codec_decompress(codecs[i], packed.data, packed.len, 5000, &out), ERR_FORMAT);
		check_error(codec_decompress_exact(codecs[i], packed.data, packed.len, unpacked, 1000), ERR_FORMAT);
		buf_deinit(&packed);
		buf_deinit(&out);
	}
}

Test(codec, rejects_every_truncation)
{
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		struct buf packed = {0};
		pack(codecs[i], plain, 500, &packed);
		for (size_t len = 0; len < packed.len; len++) {
			struct buf out = {0};
			/* A copy of just that length, so that ASan sees a read behind it. */
			uint8_t *cut = malloc(len ? len : 1);
			memcpy(cut, packed.data, len);
			check_error(codec_decompress(codecs[i], cut, len, 5000, &out), ERR_FORMAT);
			check_error(codec_decompress_exact(codecs[i], cut, len, unpacked, 500), ERR_FORMAT);
			free(cut);
			buf_deinit(&out);
		}
		buf_deinit(&packed);
	}
}

Test(codec, rejects_text_and_wrong_sizes)
{
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		struct buf packed = {0}, out = {0};
		check_error(codec_decompress(codecs[i], "this is plain text, not packed", 30, 5000, &out), ERR_FORMAT);
		pack(codecs[i], plain, 1000, &packed);
		check_error(codec_decompress_exact(codecs[i], packed.data, packed.len, unpacked, 999), ERR_FORMAT);
		check_error(codec_decompress_exact(codecs[i], packed.data, packed.len, unpacked, 1001), ERR_FORMAT);
		buf_deinit(&packed);
		buf_deinit(&out);
	}
}

Test(codec, survives_every_changed_byte)
{
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		struct buf packed = {0};
		pack(codecs[i], plain, 400, &packed);
		for (size_t at = 0; at < packed.len; at++) {
			struct buf out = {0};
			packed.data[at] ^= 0xff;
			err_free(codec_decompress(codecs[i], packed.data, packed.len, 5000, &out));
			err_free(codec_decompress_exact(codecs[i], packed.data, packed.len, unpacked, 400));
			cr_assert_leq(out.len, 5000);
			packed.data[at] ^= 0xff;
			buf_deinit(&out);
		}
		buf_deinit(&packed);
	}
}

Test(codec, feeds_nothing_more_after_an_error)
{
	struct buf out = {0};
	CLEANUP(codec_stream_destroyp) struct codec_stream *stream = NULL;

	check_ok(codec_stream_create(CODEC_GZIP, 100, &stream));
	check_error(codec_stream_feed(stream, "nonsense", 8, &out), ERR_FORMAT);
	check_error(codec_stream_feed(stream, "nonsense", 8, &out), ERR_FORMAT);
	check_error(codec_stream_finish(stream), ERR_FORMAT);
	buf_deinit(&out);
}

/* An xz stream whose header asks for a dictionary of 1.5 GiB is refused before that is allocated. */
Test(codec, limits_the_memory_of_xz)
{
	lzma_options_lzma options;
	uint8_t packed[4096];
	size_t len = 0;
	struct buf out = {0};

	cr_assert_not(lzma_lzma_preset(&options, 0));
	options.dict_size = 4096;
	lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
	cr_assert_eq(lzma_stream_buffer_encode(filters, LZMA_CHECK_NONE, NULL, plain, 100, packed, &len, sizeof(packed)), LZMA_OK);
	/* The block header lies behind the 12 bytes of stream header: size, flags, two sizes if the flags say so, filter ID,
	 * size of properties, dictionary size code, padding, CRC-32 (xz file format, 3.1). */
	size_t at = 14;
	for (int flag = 0x40; flag <= 0x80; flag <<= 1)
		if (packed[13] & flag)
			while (packed[at++] & 0x80)
				;
	cr_assert_eq(packed[at], 0x21);
	packed[at + 2] = 39; /* 3 GiB */
	size_t header = ((size_t)packed[12] + 1) * 4;
	uint32_t crc = (uint32_t)crc32(0, packed + 12, (uInt)header - 4);
	memcpy(packed + 12 + header - 4, &crc, 4);
	check_error(codec_decompress(CODEC_XZ, packed, len, 1000, &out), ERR_LIMIT);
	check_error(codec_decompress_exact(CODEC_XZ, packed, len, unpacked, 100), ERR_LIMIT);
	buf_deinit(&out);
}

Test(codec, limits_the_window_of_zstd)
{
	/* Magic, a frame header that asks for a window of 2^31, and an empty last block (RFC 8878, 3.1.1). */
	static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3, 0x01, 0x00, 0x00};
	struct buf out = {0};

	check_error(codec_decompress(CODEC_ZSTD, frame, sizeof(frame), 1000, &out), ERR_LIMIT);
	buf_deinit(&out);
}

/* The legacy format as `lz4 -l` writes it: blocks of 8 MiB behind their sizes, no end mark. */
static void pack_legacy(const uint8_t *bytes, size_t len, size_t block_max, struct buf *ret)
{
	static const uint8_t magic[] = {0x02, 0x21, 0x4c, 0x18};

	check_ok(buf_append(ret, magic, sizeof(magic)));
	for (size_t at = 0; at < len; at += block_max) {
		size_t block = len - at < block_max ? len - at : block_max;
		check_ok(buf_reserve(ret, 4 + (size_t)LZ4_compressBound((int)block)));
		uint8_t *head = ret->data + ret->len;
		int made = LZ4_compress_HC((const char *)bytes + at, (char *)head + 4, (int)block, LZ4_compressBound((int)block), 9);
		cr_assert_gt(made, 0);
		for (unsigned i = 0; i < 4; i++)
			head[i] = (uint8_t)(made >> (8 * i));
		ret->len += 4 + (size_t)made;
	}
}

Test(codec_lz4, unpacks_the_legacy_format_in_any_pieces)
{
	struct buf packed = {0}, out = {0};

	fill_plain();
	pack_legacy(plain, PLAIN_BYTES, 100000, &packed);
	pack(CODEC_LZ4, plain, 10, &packed); /* a frame may follow */
	cr_assert_eq(codec_detect(packed.data, packed.len), CODEC_LZ4);
	for (size_t piece = 1; piece < packed.len; piece = 3 * piece + 1) {
		CLEANUP(codec_stream_destroyp) struct codec_stream *stream = NULL;
		out.len = 0;
		check_ok(codec_stream_create(CODEC_LZ4, PLAIN_BYTES + 10, &stream));
		for (size_t at = 0; at < packed.len; at += piece)
			check_ok(codec_stream_feed(stream, packed.data + at, packed.len - at < piece ? packed.len - at : piece, &out));
		check_ok(codec_stream_finish(stream));
		cr_assert_eq(out.len, PLAIN_BYTES + 10);
		cr_assert_eq(memcmp(out.data, plain, PLAIN_BYTES), 0);
	}
	check_error(codec_decompress(CODEC_LZ4, packed.data, packed.len, PLAIN_BYTES + 9, &out), ERR_LIMIT);
	buf_deinit(&packed);
	buf_deinit(&out);
}

Test(codec_lz4, refuses_legacy_blocks_that_cannot_be)
{
	static const struct {
		const char *what;
		uint8_t bytes[12];
		size_t len;
	} cases[] = {
		{"nothing", {0}, 0},
		{"a size of 0", {0x02, 0x21, 0x4c, 0x18, 0, 0, 0, 0}, 8},
		{"a size over the bound", {0x02, 0x21, 0x4c, 0x18, 0xff, 0xff, 0xff, 0x7f}, 8},
		{"a size without its block", {0x02, 0x21, 0x4c, 0x18, 9, 0, 0, 0, 1}, 9},
		{"a cut size", {0x02, 0x21, 0x4c, 0x18, 9, 0}, 6},
		{"a damaged block", {0x02, 0x21, 0x4c, 0x18, 4, 0, 0, 0, 0x1f, 'a', 0xff, 0xff}, 12},
	};
	struct buf out = {0};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err *e = codec_decompress(CODEC_LZ4, cases[i].bytes, cases[i].len, 1000, &out);
		cr_assert_not_null(e, "%s", cases[i].what);
		cr_expect_eq(err_code(e), ERR_FORMAT, "%s: %s", cases[i].what, err_message(e));
		err_free(e);
	}
	buf_deinit(&out);
}

Test(codec_detect, knows_the_magics)
{
	static const enum codec with_magic[] = {CODEC_GZIP, CODEC_ZSTD, CODEC_XZ, CODEC_LZMA, CODEC_LZ4};

	fill_plain();
	for (size_t i = 0; i < ARRAY_SIZE(with_magic); i++) {
		struct buf packed = {0};
		pack(with_magic[i], plain, 10, &packed);
		cr_assert_eq(codec_detect(packed.data, packed.len), with_magic[i]);
		cr_assert_eq(codec_detect(packed.data, 2), CODEC_NONE);
		buf_deinit(&packed);
	}
	cr_assert_eq(codec_detect("\177ELF", 4), CODEC_NONE);
	cr_assert_eq(codec_detect("", 0), CODEC_NONE);
}

Test(codec_compress_zstd, gives_frames_that_say_their_size)
{
	struct buf packed = {0}, out = {0};

	fill_plain();
	check_ok(codec_compress_zstd(plain, PLAIN_BYTES, 3, &packed));
	cr_assert_lt(packed.len, PLAIN_BYTES / 2);
	cr_assert_eq(ZSTD_getFrameContentSize(packed.data, packed.len), PLAIN_BYTES);
	check_ok(codec_compress_zstd(NULL, 0, 3, &packed));
	check_ok(codec_decompress(CODEC_ZSTD, packed.data, packed.len, PLAIN_BYTES, &out));
	cr_assert_eq(memcmp(out.data, plain, PLAIN_BYTES), 0);
	buf_deinit(&packed);
	buf_deinit(&out);
}
