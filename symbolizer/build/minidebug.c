// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/minidebug.h"

#include <elf.h>

static struct err *unpack(const struct elffile *binary, const struct elffile_section *section, uint64_t limit, struct minidebug *ret)
{
	size_t len;
	const uint8_t *bytes = elffile_bytes(binary, &len) + section->foff;
	uint64_t most = limit && limit < MINIDEBUG_BYTES_MAX ? limit : MINIDEBUG_BYTES_MAX;

	if (section->codec != CODEC_NONE || codec_detect(bytes, section->stored_size) != CODEC_XZ)
		return err_new(ERR_FORMAT, "not compressed by xz");
	TRY(codec_decompress(CODEC_XZ, bytes, section->stored_size, (size_t)most, &ret->bytes));
	return elffile_open(ret->bytes.data, ret->bytes.len, ".gnu_debugdata", NULL, &ret->file);
}

struct err *minidebug_open(const struct elffile *binary, uint64_t limit, struct minidebug *ret)
{
	const struct elffile_section *section = elffile_find(binary, ".gnu_debugdata");
	struct minidebug mini = {.file = NULL};

	if (!section || section->stored_size == 0)
		return NULL;
	struct err *e = err_wrap(unpack(binary, section, limit, &mini), "%s: .gnu_debugdata", elffile_name(binary));
	if (!e && (elffile_machine(mini.file) != elffile_machine(binary) || elffile_base(mini.file) != elffile_base(binary)))
		e = err_new(ERR_FORMAT, "%s: .gnu_debugdata: of another kind of file", elffile_name(binary));
	if (e)
		minidebug_deinit(&mini);
	else
		*ret = mini;
	return e;
}

void minidebug_deinit(struct minidebug *mini)
{
	elffile_close(mini->file);
	buf_deinit(&mini->bytes);
	*mini = (struct minidebug){.file = NULL};
}
