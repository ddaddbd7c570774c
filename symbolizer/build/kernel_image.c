// SPDX-License-Identifier: Apache-2.0
/*
 * Where things lie, in little-endian bytes from the file's start:
 *
 *     bzImage   0x1f1 setup_sects u8 (0 means 4)    0x202 "HdrS"    0x206 version u16, 2.08 or later
 *               0x248 payload_offset u32, from (setup_sects + 1) * 512    0x24c payload_length u32
 *               The payload is vmlinux without symbols, packed, and behind it its size u32, which gzip itself ends with.
 *     zboot     0 "MZ" 0 0 "zimg"    8 offset u32    12 size u32    24 name of the compression
 *               The payload is a bare image.
 *     bare      56 "ARM\x64" or "RSC\x05"
 *               What objcopy -O binary left of vmlinux. Its notes are in it, but nothing says where: they are looked for. The vDSOs
 *               are in it, too, whole ELF files with build IDs of their own, which are passed over. Where more than one build
 *               ID is left nobody can tell, and that is the answer.
 *
 * Nothing is unpacked twice: what comes out is an ELF file or a bare image, or the file is refused. The promised size is a limit of
 * the output and has to be met; memory grows with what really comes out.
 */
#include "symbolizer/build/kernel_image.h"

#include "base/reader.h"

#include <elf.h>
#include <inttypes.h>

enum {
	SETUP_SECTS_AT = 0x1f1,
	HEADER_AT = 0x202,
	VERSION_AT = 0x206,
	PAYLOAD_AT = 0x248,
	SECTOR = 512,
	VERSION_WITH_PAYLOAD = 0x208,
	ZBOOT_OFFSET_AT = 8,
	BARE_MAGIC_AT = 56,
	NOTE_DESC_MAX = 32,
	VDSO_ALIGN = 4096, /* of the ELF files inside of a bare image */
};

static bool has_at(const uint8_t *bytes, size_t len, size_t at, const char *magic, size_t magic_len)
{
	return len >= at + magic_len && memcmp(bytes + at, magic, magic_len) == 0;
}

static bool is_bare(const uint8_t *bytes, size_t len, uint16_t *machine_ret)
{
	*machine_ret = EM_AARCH64;
	if (has_at(bytes, len, BARE_MAGIC_AT, "ARM\x64", 4))
		return true;
	*machine_ret = EM_RISCV;
	return has_at(bytes, len, BARE_MAGIC_AT, "RSC\x05", 4);
}

static bool is_elf(const uint8_t *bytes, size_t len)
{
	return has_at(bytes, len, 0, ELFMAG, SELFMAG);
}

enum kernel_image_form kernel_image_detect(const void *data, size_t len)
{
	const uint8_t *bytes = data;
	uint16_t machine;

	if (is_elf(bytes, len))
		return KERNEL_IMAGE_NONE;
	if (has_at(bytes, len, HEADER_AT, "HdrS", 4) && has_at(bytes, len, 0x1fe, "\x55\xaa", 2))
		return KERNEL_IMAGE_BZIMAGE;
	if (has_at(bytes, len, 0, "MZ", 2) && has_at(bytes, len, 4, "zimg", 4))
		return KERNEL_IMAGE_ZBOOT;
	if (is_bare(bytes, len, &machine))
		return KERNEL_IMAGE_BARE;
	return codec_detect(bytes, len) == CODEC_NONE ? KERNEL_IMAGE_NONE : KERNEL_IMAGE_STREAM;
}

bool kernel_image_is_named(const char *path)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;

	return strstr(base, ".ko.") || strncmp(base, "vmlinu", 6) == 0 || strncmp(base, "Image", 5) == 0;
}

/* ---- Bare images ---- */

/* Where an ELF file that begins at @p at ends by its own header: the section headers come last. 0: it is none. */
static size_t embedded_end(const uint8_t *bytes, size_t len, size_t at)
{
	struct reader r = reader_init(bytes + at, len - at, false, "");
	bool is_64 = len - at > EI_CLASS && bytes[at + EI_CLASS] == ELFCLASS64;

	reader_skip(&r, is_64 ? 40 : 32);
	uint64_t sections = is_64 ? reader_u64(&r) : reader_u32(&r);
	reader_skip(&r, 10); /* flags, its own size, program headers */
	uint64_t size = reader_u16(&r), count = reader_u16(&r);
	if (r.failed || sections > len - at || size * count > len - at - sections)
		return 0;
	return at + (size_t)(sections + size * count);
}

/* A GNU build ID note at @p at: lengths 4 and desc, type, "GNU". */
static bool note_at(const uint8_t *bytes, size_t len, size_t at, struct build_id *ret)
{
	struct reader r = reader_init(bytes + at, len - at, false, "");
	uint32_t name_len = reader_u32(&r), desc_len = reader_u32(&r), type = reader_u32(&r);
	const uint8_t *name = reader_bytes(&r, 4);

	if (name_len != 4 || type != NT_GNU_BUILD_ID || !name || memcmp(name, "GNU", 4) != 0 || desc_len < 8 || desc_len > NOTE_DESC_MAX)
		return false;
	const uint8_t *desc = reader_bytes(&r, desc_len);
	if (!desc)
		return false;
	*ret = (struct build_id){.len = (uint8_t)desc_len};
	memcpy(ret->bytes, desc, desc_len);
	return true;
}

static struct err *find_build_id(const uint8_t *bytes, size_t len, const char *name, struct build_id *ret)
{
	struct build_id found = {0}, next;

	for (size_t at = 0; at + 16 <= len;) {
		size_t end = at % VDSO_ALIGN == 0 && is_elf(bytes + at, len - at) ? embedded_end(bytes, len, at) : 0;
		if (end > at) {
			at = (end + 3) & ~(size_t)3;
			continue;
		}
		if (note_at(bytes, len, at, &next)) {
			if (found.len > 0 && !build_id_equal(&found, &next))
				return err_new(ERR_UNSUPPORTED, "%s: a bare image with several build IDs: upload its vmlinux", name);
			found = next;
		}
		at += 4;
	}
	if (found.len == 0)
		return err_new(ERR_UNSUPPORTED, "%s: a bare image without a build ID: upload its vmlinux", name);
	*ret = found;
	return NULL;
}

/* ---- Unpacking ---- */

static uint64_t limit_of(uint64_t limit, size_t packed)
{
	uint64_t ratio = (uint64_t)packed * KERNEL_IMAGE_RATIO_MAX;

	if (ratio < KERNEL_IMAGE_RATIO_FROM)
		ratio = KERNEL_IMAGE_RATIO_FROM;
	if (limit > KERNEL_IMAGE_BYTES_MAX)
		limit = KERNEL_IMAGE_BYTES_MAX;
	return limit < ratio ? limit : ratio;
}

static struct err *unknown_compression(const uint8_t *bytes, size_t len, const char *name)
{
	const char *which = has_at(bytes, len, 0, "BZh", 3) ? "bzip2" : has_at(bytes, len, 0, "\x89LZO", 4) ? "lzo" : "something unknown";

	return err_new(ERR_UNSUPPORTED, "%s: its kernel is packed by %s; gzip, xz, lzma, zstd and lz4 are read", name, which);
}

/* What came out must be a kernel or a module: a second layer is refused. */
static struct err *settle(const char *name, struct kernel_image *image)
{
	if (is_elf(image->elf.data, image->elf.len))
		return NULL;
	if (!is_bare(image->elf.data, image->elf.len, &image->elf_machine))
		return err_new(ERR_FORMAT, "%s: what is packed in it is neither an ELF file nor a kernel image", name);
	TRY(find_build_id(image->elf.data, image->elf.len, name, &image->build_id));
	buf_deinit(&image->elf);
	return NULL;
}

/* @p promised: bytes that should come out; 0: nobody said. */
static struct err *unpack(const uint8_t *bytes, size_t len, const char *name, uint64_t limit, uint64_t promised, struct kernel_image *image)
{
	enum codec codec = codec_detect(bytes, len);
	uint64_t most = limit_of(limit, len);

	if (is_elf(bytes, len))
		return buf_append(&image->elf, bytes, len);
	if (codec == CODEC_NONE)
		return unknown_compression(bytes, len, name);
	if (promised > most)
		return err_new(ERR_LIMIT, "%s: it says that it unpacks to %" PRIu64 " bytes, more than %" PRIu64, name, promised, most);
	struct err *e = codec_decompress(codec, bytes, len, (size_t)(promised ? promised : most), &image->elf);
	if (e && err_code(e) == ERR_LIMIT && promised && image->elf.len >= promised) {
		err_free(e);
		e = err_new(ERR_FORMAT, "it unpacks to more than the %" PRIu64 " bytes that it says", promised);
	}
	if (!e && promised && image->elf.len != promised)
		e = err_new(ERR_FORMAT, "it unpacks to %zu bytes, not the %" PRIu64 " that it says", image->elf.len, promised);
	return err_wrap(e, "%s", name);
}

static struct err *unpack_bzimage(const uint8_t *bytes, size_t len, const char *name, uint64_t limit, struct kernel_image *image)
{
	struct reader r = reader_init(bytes, len, false, name);

	reader_seek(&r, SETUP_SECTS_AT);
	uint64_t setup = reader_u8(&r);
	reader_seek(&r, VERSION_AT);
	unsigned version = reader_u16(&r);
	reader_seek(&r, PAYLOAD_AT);
	uint64_t offset = reader_u32(&r), size = reader_u32(&r);
	if (r.failed)
		return reader_error(&r, "a bzImage that ends in its header");
	if (version < VERSION_WITH_PAYLOAD)
		return err_new(ERR_UNSUPPORTED, "%s: boot protocol %u.%02u, older than 2.08 (Linux 2.6.26)", name, version >> 8, version & 255);
	offset += ((setup ? setup : 4) + 1) * SECTOR;
	if (offset > len || size > len - offset || size < 8)
		return err_new(ERR_FORMAT, "%s: a bzImage whose payload of 0x%" PRIx64 " bytes at 0x%" PRIx64 " passes its end (0x%zx bytes)", name,
			size, offset, len);
	const uint8_t *payload = bytes + offset;
	struct reader tail = reader_init(payload + size - 4, 4, false, name);
	uint64_t promised = reader_u32(&tail);
	bool trailer = !is_elf(payload, size) && codec_detect(payload, size) != CODEC_GZIP;
	if (promised == 0)
		return err_new(ERR_FORMAT, "%s: a bzImage whose payload says that it unpacks to nothing", name);
	TRY(unpack(payload, size - (trailer ? 4 : 0), name, limit, promised, image));
	if (!is_elf(image->elf.data, image->elf.len))
		return err_new(ERR_FORMAT, "%s: a bzImage whose payload is no ELF file", name);
	return NULL;
}

static struct err *unpack_zboot(const uint8_t *bytes, size_t len, const char *name, uint64_t limit, struct kernel_image *image)
{
	struct reader r = reader_init(bytes, len, false, name);

	reader_seek(&r, ZBOOT_OFFSET_AT);
	uint64_t offset = reader_u32(&r), size = reader_u32(&r);
	if (r.failed || offset > len || size > len - offset)
		return err_new(ERR_FORMAT, "%s: an EFI image whose payload of 0x%" PRIx64 " bytes at 0x%" PRIx64 " passes its end (0x%zx bytes)", name,
			size, offset, len);
	TRY(unpack(bytes + offset, size, name, limit, 0, image));
	return settle(name, image);
}

static struct err *unpack_any(const uint8_t *bytes, size_t len, const char *name, uint64_t limit, struct kernel_image *image)
{
	switch (kernel_image_detect(bytes, len)) {
	case KERNEL_IMAGE_BZIMAGE:
		return unpack_bzimage(bytes, len, name, limit, image);
	case KERNEL_IMAGE_ZBOOT:
		return unpack_zboot(bytes, len, name, limit, image);
	case KERNEL_IMAGE_STREAM:
		TRY(unpack(bytes, len, name, limit, 0, image));
		return settle(name, image);
	case KERNEL_IMAGE_BARE:
		(void)is_bare(bytes, len, &image->elf_machine);
		return find_build_id(bytes, len, name, &image->build_id);
	case KERNEL_IMAGE_NONE:
		break;
	}
	return err_new(ERR_INVALID, "%s: nothing is packed in it", name);
}

struct err *kernel_image_unpack(const void *bytes, size_t len, const char *name, uint64_t limit, struct kernel_image *ret)
{
	CLEANUP(kernel_image_deinit) struct kernel_image image = {0};

	TRY(unpack_any(bytes, len, name, limit, &image));
	*ret = image;
	image = (struct kernel_image){0};
	return NULL;
}

void kernel_image_deinit(struct kernel_image *image)
{
	buf_deinit(&image->elf);
}
