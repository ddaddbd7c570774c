// SPDX-License-Identifier: Apache-2.0
/*
 * Two formats under one name, told apart by their magic numbers (LZ4 Frame Format Description 1.6):
 *
 *     frame    04 22 4d 18   read by liblz4's LZ4F, which also passes over skippable frames
 *     legacy   02 21 4c 18   { block size u32 little-endian, block }*, each block at most 8 MiB once unpacked; no end mark,
 *                            no checksum. liblz4 leaves it to its command line tool
 *
 *              magic ----> FRAME --end of frame--> magic
 *                 \
 *                  `-----> SIZE -> BLOCK -> OUT -> SIZE ..       a magic in place of a size begins another frame
 *
 * A block is gathered whole before it is unpacked; memory grows with the bytes that came, not with the size that was promised.
 */
#include "base/codec_lz4.h"

#include "base/buf.h"
#include "base/cleanup.h"

#include <lz4.h>
#include <lz4frame.h>
#include <string.h>

enum { LEGACY_BLOCK = 8 << 20 };
static const uint32_t magic_frame = 0x184d2204, magic_legacy = 0x184c2102;

enum state { AT_MAGIC, IN_FRAME, AT_SIZE, IN_BLOCK, IN_OUTPUT };

struct codec_lz4 {
	enum state state;
	bool begun; /* a magic was seen: nothing at all is no LZ4 */
	uint8_t head[4];
	size_t head_len;
	LZ4F_dctx *frame;
	size_t block_len; /* as promised */
	struct buf block;
	uint8_t *plain; /* LEGACY_BLOCK bytes */
	size_t plain_len, plain_pos;
};

static struct err *damaged(const char *detail)
{
	return err_new(ERR_FORMAT, "lz4 data is damaged: %s", detail);
}

struct err *codec_lz4_create(struct codec_lz4 **ret)
{
	struct codec_lz4 *lz4 = calloc(1, sizeof(*lz4));

	if (!lz4)
		return err_nomem();
	if (LZ4F_isError(LZ4F_createDecompressionContext(&lz4->frame, LZ4F_VERSION))) {
		free(lz4);
		return err_nomem();
	}
	*ret = lz4;
	return NULL;
}

void codec_lz4_destroy(struct codec_lz4 *lz4)
{
	if (!lz4)
		return;
	(void)LZ4F_freeDecompressionContext(lz4->frame);
	buf_deinit(&lz4->block);
	free(lz4->plain);
	free(lz4);
}

static void take(struct codec_io *io, size_t len)
{
	io->in += len;
	io->in_len -= len;
}

/* Four bytes; false until they are there. */
static bool read_head(struct codec_lz4 *lz4, struct codec_io *io, uint32_t *ret)
{
	while (lz4->head_len < sizeof(lz4->head) && io->in_len > 0) {
		lz4->head[lz4->head_len++] = *io->in;
		take(io, 1);
	}
	if (lz4->head_len < sizeof(lz4->head))
		return false;
	*ret = lz4->head[0] | (uint32_t)lz4->head[1] << 8 | (uint32_t)lz4->head[2] << 16 | (uint32_t)lz4->head[3] << 24;
	lz4->head_len = 0;
	return true;
}

/* The bytes of a frame, its magic first, which was read already. */
static struct err *frame_bytes(struct codec_lz4 *lz4, const uint8_t *in, size_t *in_len, struct codec_io *io)
{
	size_t out_len = io->out_len;
	size_t result = LZ4F_decompress(lz4->frame, io->out, &out_len, in, in_len, NULL);

	if (LZ4F_isError(result)) /* the shared library tells the codes by their names only */
		return strcmp(LZ4F_getErrorName(result), "ERROR_allocation_failed") == 0 ? err_nomem() : damaged(LZ4F_getErrorName(result));
	io->out += out_len;
	io->out_len -= out_len;
	if (result == 0)
		lz4->state = AT_MAGIC;
	return NULL;
}

static struct err *begin(struct codec_lz4 *lz4, struct codec_io *io, uint32_t magic)
{
	size_t len = sizeof(lz4->head);

	lz4->begun = true;
	if (magic == magic_legacy) {
		lz4->state = AT_SIZE;
		return NULL;
	}
	lz4->state = IN_FRAME;
	TRY(frame_bytes(lz4, lz4->head, &len, io));
	return len == sizeof(lz4->head) ? NULL : damaged("its magic number");
}

static struct err *on_size(struct codec_lz4 *lz4, struct codec_io *io, uint32_t size)
{
	if (size == magic_legacy || size == magic_frame)
		return begin(lz4, io, size);
	if (size == 0 || size > (uint32_t)LZ4_compressBound(LEGACY_BLOCK))
		return damaged("a block of a size that cannot be");
	lz4->block_len = size;
	lz4->block.len = 0;
	lz4->state = IN_BLOCK;
	return NULL;
}

static struct err *gather_block(struct codec_lz4 *lz4, struct codec_io *io)
{
	size_t missing = lz4->block_len - lz4->block.len, len = missing < io->in_len ? missing : io->in_len;

	TRY(buf_append(&lz4->block, io->in, len));
	take(io, len);
	if (len < missing)
		return NULL;
	if (!lz4->plain)
		lz4->plain = malloc(LEGACY_BLOCK);
	if (!lz4->plain)
		return err_nomem();
	int made = LZ4_decompress_safe((const char *)lz4->block.data, (char *)lz4->plain, (int)lz4->block_len, LEGACY_BLOCK);
	if (made < 0)
		return damaged("a block");
	lz4->plain_len = (size_t)made;
	lz4->plain_pos = 0;
	lz4->state = IN_OUTPUT;
	return NULL;
}

static void put_output(struct codec_lz4 *lz4, struct codec_io *io)
{
	size_t left = lz4->plain_len - lz4->plain_pos, len = left < io->out_len ? left : io->out_len;

	memcpy(io->out, lz4->plain + lz4->plain_pos, len);
	io->out += len;
	io->out_len -= len;
	lz4->plain_pos += len;
	if (len == left)
		lz4->state = AT_SIZE;
}

static struct err *step_frame(struct codec_lz4 *lz4, struct codec_io *io)
{
	size_t in_len = io->in_len;

	TRY(frame_bytes(lz4, io->in, &in_len, io));
	take(io, in_len);
	return NULL;
}

static struct err *step_one(struct codec_lz4 *lz4, struct codec_io *io)
{
	uint32_t head;

	switch (lz4->state) {
	case AT_MAGIC:
		return read_head(lz4, io, &head) ? begin(lz4, io, head) : NULL;
	case AT_SIZE:
		return read_head(lz4, io, &head) ? on_size(lz4, io, head) : NULL;
	case IN_FRAME:
		return step_frame(lz4, io);
	case IN_BLOCK:
		return gather_block(lz4, io);
	case IN_OUTPUT:
		break;
	}
	put_output(lz4, io);
	return NULL;
}

struct err *codec_lz4_step(struct codec_lz4 *lz4, struct codec_io *io, bool *at_end_ret)
{
	for (bool moved = true; moved;) {
		struct codec_io before = *io;
		enum state state = lz4->state;

		TRY(step_one(lz4, io));
		moved = io->in_len != before.in_len || io->out_len != before.out_len || lz4->state != state;
	}
	*at_end_ret = lz4->begun && lz4->head_len == 0 && (lz4->state == AT_MAGIC || lz4->state == AT_SIZE);
	return NULL;
}
