// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/elf_file.h"

#include "base/buf.h"
#include "tests/build/elf_image.h"

#include <criterion/criterion.h>
#include <zlib.h>

static const uint8_t text_bytes[] = {0x90, 0x90, 0xc3, 0x90};
static const uint64_t code = SHF_ALLOC | SHF_EXECINSTR;

/* An image with every part that elffile_open looks at. */
static void make_full(struct elf_image *m, bool is_64, bool big_endian)
{
	struct elf_image note; /* for its byte order */

	image_begin(m, is_64, big_endian);
	image_begin(&note, is_64, big_endian);
	note.len = 0;
	image_put(&note, 4, 4);
	image_put(&note, 4, 4);
	image_put(&note, NT_GNU_BUILD_ID, 4);
	image_bytes(&note, "GNU\0\xde\xad\xbe\xef", 8);
	image_section(m, ".note.gnu.build-id", SHT_NOTE, SHF_ALLOC, 0x200, note.bytes, note.len);
	image_section(m, ".text", SHT_PROGBITS, code, 0x1000, text_bytes, sizeof(text_bytes));
	image_section(m, ".bss", SHT_NOBITS, SHF_ALLOC | SHF_WRITE, 0x3000, NULL, 1 << 30);
	note.len = 0;
	image_bytes(&note, "a.debug\0", 8);
	image_put(&note, 0x11223344, 4);
	image_section(m, ".gnu_debuglink", SHT_PROGBITS, 0, 0, note.bytes, note.len);
	image_section(m, ".gnu_debugaltlink", SHT_PROGBITS, 0, 0, "/x.dwz\0\1\2\3", 10);
	image_section(m, ".debug_info", SHT_PROGBITS, 0, 0, "hello", 5);
	image_finish(m);
}

static struct err *open_image(const struct elf_image *m, struct elffile **ret)
{
	return elffile_open(m->bytes, m->len, "t", NULL, ret);
}

/* The image must be refused with this code and a message that contains @p words. */
static void expect_refused(const struct elf_image *m, enum err_code code_wanted, const char *words)
{
	struct elffile *file = (struct elffile *)(uintptr_t)1;
	struct err *e = open_image(m, &file);

	cr_assert_not_null(e, "was accepted");
	cr_assert_not_null(strstr(err_message(e), words), "\"%s\" does not contain \"%s\"", err_message(e), words);
	cr_assert_eq(err_code(e), code_wanted, "%s", err_message(e));
	cr_assert_eq((uintptr_t)file, 1, "ret was touched");
	err_free(e);
}

static struct elffile *must_open(const struct elf_image *m)
{
	struct elffile *file = NULL;
	struct err *e = open_image(m, &file);

	cr_assert_null(e, "%s", err_message(e));
	return file;
}

static void check_full(bool is_64, bool big_endian)
{
	struct elf_image m;
	make_full(&m, is_64, big_endian);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);

	cr_assert_eq(elffile_is_64(file), is_64);
	cr_assert_eq(elffile_big_endian(file), big_endian);
	cr_assert_eq(elffile_address_size(file), is_64 ? 8 : 4);
	cr_assert_eq(elffile_type(file), ET_DYN);
	cr_assert_eq(elffile_machine(file), is_64 ? EM_X86_64 : EM_386);
	cr_assert_eq(elffile_section_count(file), 8);
	cr_assert_null(elffile_section(file, 8));
	cr_assert_null(elffile_find(file, ".debug_line"));

	const struct elffile_section *info = elffile_find(file, ".debug_info");
	struct reader r;
	cr_assert_eq(info->size, 5);
	cr_assert_null(elffile_load(file, info, &r));
	cr_assert_eq(reader_left(&r), 5);
	cr_assert_eq(memcmp(r.pos, "hello", 5), 0);
	cr_assert_str_eq(r.place, "t: .debug_info");
	cr_assert_eq(r.big_endian, big_endian);

	cr_assert_eq(elffile_build_id(file)->len, 4);
	cr_assert_eq(memcmp(elffile_build_id(file)->bytes, "\xde\xad\xbe\xef", 4), 0);
	cr_assert_str_eq(elffile_debuglink(file).name, "a.debug");
	cr_assert_eq(elffile_debuglink(file).crc, 0x11223344);
	struct build_id alt;
	cr_assert_str_eq(elffile_debugaltlink(file, &alt), "/x.dwz");
	cr_assert_eq(alt.len, 3);
	cr_assert_eq(alt.bytes[2], 3);
}

Test(elffile_open, reads_64_bits_little_endian) { check_full(true, false); }
Test(elffile_open, reads_64_bits_big_endian) { check_full(true, true); }
Test(elffile_open, reads_32_bits_little_endian) { check_full(false, false); }
Test(elffile_open, reads_32_bits_big_endian) { check_full(false, true); }

Test(elffile_open, survives_truncation_at_every_length)
{
	struct elf_image m;
	make_full(&m, true, false);
	/* Exactly as large as the image: AddressSanitizer sees a read behind it. */
	for (size_t len = 0; len < m.len; len++) {
		uint8_t *bytes CLEANUP(freep) = malloc(len ? len : 1);
		struct elffile *file = NULL;

		cr_assert_not_null(bytes);
		memcpy(bytes, m.bytes, len);
		struct err *e = elffile_open(bytes, len, "t", NULL, &file);
		cr_assert_not_null(e, "%zu of %zu bytes were accepted", len, m.len);
		cr_assert_eq(err_code(e), ERR_FORMAT, "%zu: %s", len, err_message(e));
		err_free(e);
	}
}

/* Any byte changed to a few values: opened or refused, and whatever opens can be walked. */
Test(elffile_open, survives_every_byte_changed)
{
	static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	struct elf_image m;
	make_full(&m, true, false);
	for (size_t at = 0; at < m.len; at++) {
		uint8_t before = m.bytes[at];

		for (size_t v = 0; v < ARRAY_SIZE(values); v++) {
			struct elffile *file CLEANUP(elffile_closep) = NULL;
			struct reader r;

			m.bytes[at] = values[v];
			struct err *e = open_image(&m, &file);
			for (size_t i = 0; !e && i < elffile_section_count(file); i++)
				err_free(elffile_load(file, elffile_section(file, i), &r));
			err_free(e);
		}
		m.bytes[at] = before;
	}
}

Test(elffile_open, refuses_an_empty_file)
{
	struct elf_image m = {.len = 0};
	expect_refused(&m, ERR_FORMAT, "t: empty file");
}

Test(elffile_open, refuses_a_text_file)
{
	struct elf_image m = {.len = 0};
	image_bytes(&m, "#!/bin/sh\necho this is no ELF file\n", 34);
	expect_refused(&m, ERR_FORMAT, "t: not an ELF file");
}

Test(elffile_open, refuses_an_unknown_class_and_byte_order)
{
	struct elf_image m;
	make_full(&m, true, false);
	m.bytes[EI_CLASS] = 3;
	expect_refused(&m, ERR_FORMAT, "ELF class 3");
	m.bytes[EI_CLASS] = ELFCLASS64;
	m.bytes[EI_DATA] = 0;
	expect_refused(&m, ERR_FORMAT, "byte order 0");
}

Test(elffile_open, accepts_an_unknown_machine)
{
	struct elf_image m;
	make_full(&m, true, false);
	image_put_at(&m, 18, 0xbeef, 2);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	cr_assert_eq(elffile_machine(file), 0xbeef);
}

Test(elffile_open, refuses_more_sections_than_the_limit)
{
	struct elf_image m;
	make_full(&m, true, false);
	image_put_at(&m, 60, 0, 2); /* e_shnum: see section 0 */
	image_put_at(&m, image_field(&m, 0, 32, 20), ELFFILE_SECTIONS_MAX + 1, 8);
	expect_refused(&m, ERR_LIMIT, "1048577 sections, more than 1048576");
	image_put_at(&m, image_field(&m, 0, 32, 20), UINT64_MAX, 8);
	expect_refused(&m, ERR_LIMIT, "18446744073709551615 sections");
}

Test(elffile_open, refuses_section_headers_past_the_end)
{
	struct elf_image m;
	make_full(&m, true, false);
	image_put_at(&m, 60, 0xfeff, 2);
	expect_refused(&m, ERR_FORMAT, "65279 section headers at 0x");
	image_put_at(&m, 60, 8, 2);
	image_put_at(&m, 40, UINT64_MAX - 100, 8);
	expect_refused(&m, ERR_FORMAT, "lie past the end of the file");
}

Test(elffile_open, refuses_section_headers_over_the_elf_header)
{
	struct elf_image m;
	make_full(&m, true, false);
	image_put_at(&m, 40, 16, 8);
	expect_refused(&m, ERR_FORMAT, "section headers at 0x10 overlap the ELF header");
}

Test(elffile_open, refuses_section_headers_of_another_size)
{
	struct elf_image m;
	make_full(&m, true, false);
	image_put_at(&m, 58, 40, 2);
	expect_refused(&m, ERR_FORMAT, "section headers of 40 bytes, not 64");
}

Test(elffile_open, takes_the_extended_counts_from_section_0)
{
	struct elf_image m;
	make_full(&m, true, false);
	image_put_at(&m, 60, 0, 2);
	image_put_at(&m, 62, SHN_XINDEX, 2);
	image_put_at(&m, image_field(&m, 0, 32, 20), 8, 8);
	image_put_at(&m, image_field(&m, 0, 40, 24), 7, 4);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	cr_assert_eq(elffile_section_count(file), 8);
	cr_assert_not_null(elffile_find(file, ".debug_info"));
}

Test(elffile_open, refuses_a_section_past_the_end_and_names_it)
{
	struct elf_image m;
	make_full(&m, true, false);
	image_put_at(&m, image_field(&m, 6, 32, 20), m.len, 8);
	expect_refused(&m, ERR_FORMAT, "section 6 (.debug_info): bytes 0x");
	image_put_at(&m, image_field(&m, 6, 32, 20), UINT64_MAX, 8);
	expect_refused(&m, ERR_FORMAT, "lie past the end of the file");
}

Test(elffile_open, refuses_an_address_range_that_wraps)
{
	struct elf_image m;
	make_full(&m, true, false);
	image_put_at(&m, image_field(&m, 2, 16, 12), UINT64_MAX - 1, 8);
	expect_refused(&m, ERR_FORMAT, "section 2 (.text): address range wraps around");
}

Test(elffile_open, refuses_names_out_of_range)
{
	struct elf_image m;
	make_full(&m, true, false);
	image_put_at(&m, image_field(&m, 2, 0, 0), 5000, 4);
	expect_refused(&m, ERR_FORMAT, "section 2: name at 0x1388");
	image_put_at(&m, image_field(&m, 2, 0, 0), 1, 4);
	image_put_at(&m, 62, 99, 2);
	expect_refused(&m, ERR_FORMAT, "section names are in section 99 of 8");
}

Test(elffile_open, refuses_names_without_an_end)
{
	struct elf_image m;
	make_full(&m, true, false);
	m.bytes[m.headers[7].foff + m.headers[7].size - 1] = 'x';
	expect_refused(&m, ERR_FORMAT, "does not end with NUL");
}

Test(elffile_open, refuses_a_debuglink_with_a_directory)
{
	struct elf_image m;
	image_begin(&m, true, false);
	image_section(&m, ".gnu_debuglink", SHT_PROGBITS, 0, 0, "../evil\0\1\2\3\4", 12);
	image_finish(&m);
	expect_refused(&m, ERR_FORMAT, "section 1 (.gnu_debuglink): not a file name");
}

Test(elffile_open, refuses_a_debuglink_without_crc)
{
	struct elf_image m;
	image_begin(&m, true, false);
	image_section(&m, ".gnu_debuglink", SHT_PROGBITS, 0, 0, "a.debug\0\1\2\3", 11);
	image_finish(&m);
	expect_refused(&m, ERR_FORMAT, "section 1 (.gnu_debuglink): truncated");
}

Test(elffile_open, accepts_a_file_without_sections)
{
	struct elf_image m;
	image_begin(&m, true, false);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	size_t count;
	cr_assert_eq(elffile_section_count(file), 0);
	(void)elffile_code_ranges(file, &count);
	cr_assert_eq(count, 0);
	cr_assert(!elffile_is_code(file, 0));
}

Test(elffile_code_ranges, come_from_segments_where_there_are_no_sections)
{
	struct elf_image m;
	image_begin(&m, true, false);
	image_put_at(&m, 32, m.len, 8); /* e_phoff */
	image_put_at(&m, 56, 2, 2);	/* e_phnum */
	for (unsigned i = 0; i < 2; i++) {
		image_put(&m, PT_LOAD, 4);
		image_put(&m, i ? PF_R | PF_X : PF_R, 4);
		image_put(&m, 0, 8);
		image_put(&m, 0x1000 * (i + 1), 8);
		image_put(&m, 0x1000 * (i + 1), 8);
		image_put(&m, 0x80, 8);
		image_put(&m, 0x80, 8);
		image_put(&m, 0x1000, 8);
	}
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	size_t count;
	const struct elffile_range *ranges = elffile_code_ranges(file, &count);
	cr_assert_eq(count, 1);
	cr_assert_eq(ranges[0].low, 0x2000);
	cr_assert_eq(ranges[0].high, 0x2080);
}

Test(elffile_find, prefers_a_section_that_has_bytes)
{
	struct elf_image m;
	image_begin(&m, true, false);
	image_section(&m, ".debug_info", SHT_NOBITS, 0, 0, NULL, 9);
	image_section(&m, ".debug_info", SHT_PROGBITS, 0, 0, "x", 1);
	image_finish(&m);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	cr_assert_eq(elffile_find(file, ".debug_info")->index, 2);
}

Test(elffile_load, gives_no_bytes_of_nobits_but_keeps_its_size)
{
	struct elf_image m;
	make_full(&m, true, false);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	const struct elffile_section *bss = elffile_find(file, ".bss");
	struct reader r;

	cr_assert_eq(bss->size, 1 << 30);
	cr_assert_eq(bss->vaddr, 0x3000);
	cr_assert_null(elffile_load(file, bss, &r));
	cr_assert_eq(reader_left(&r), 0);
}

Test(elffile_is_code, merges_sections_and_knows_their_edges)
{
	struct elf_image m;
	image_begin(&m, true, false);
	image_section(&m, ".text", SHT_NOBITS, code, 0x2000, NULL, 0x100);
	image_section(&m, ".init", SHT_PROGBITS, code, 0x1000, text_bytes, 4);
	image_section(&m, ".plt", SHT_PROGBITS, code, 0x1004, text_bytes, 4);
	image_section(&m, ".data", SHT_PROGBITS, SHF_ALLOC, 0x3000, text_bytes, 4);
	image_finish(&m);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	size_t count;
	const struct elffile_range *ranges = elffile_code_ranges(file, &count);

	cr_assert_eq(count, 2);
	cr_assert_eq(ranges[0].low, 0x1000);
	cr_assert_eq(ranges[0].high, 0x1008);
	cr_assert(!elffile_is_code(file, 0xfff));
	cr_assert(elffile_is_code(file, 0x1000));
	cr_assert(elffile_is_code(file, 0x1007));
	cr_assert(!elffile_is_code(file, 0x1008));
	cr_assert(!elffile_is_code(file, 0x1fff));
	cr_assert(elffile_is_code(file, 0x20ff));
	cr_assert(!elffile_is_code(file, 0x2100));
	cr_assert(!elffile_is_code(file, 0x3000));
	cr_assert(!elffile_is_code(file, UINT64_MAX));
}

/* ------------------------------------------------------------------ compressed sections */

enum { PLAIN_LEN = 100000 };

static void fill_plain(uint8_t plain[PLAIN_LEN])
{
	for (size_t i = 0; i < PLAIN_LEN; i++)
		plain[i] = (uint8_t)(i * i >> 7);
}

enum packing {
	PACK_ZLIB,
	PACK_ZSTD,
	PACK_GNU,
};

/* Bytes of a compressed section with its header, which claims @p claimed bytes. */
static size_t pack(const struct elf_image *m, enum packing packing, const uint8_t *plain, size_t len, uint64_t claimed,
	uint8_t *out, size_t cap)
{
	struct elf_image header = {.is_64 = m->is_64, .big_endian = m->big_endian || packing == PACK_GNU};

	if (packing == PACK_GNU) {
		image_bytes(&header, "ZLIB", 4);
		image_put(&header, claimed, 8);
	} else {
		image_put(&header, packing == PACK_ZLIB ? ELFCOMPRESS_ZLIB : 2, 4);
		if (m->is_64)
			image_put(&header, 0, 4);
		image_word(&header, claimed);
		image_word(&header, 1);
	}
	memcpy(out, header.bytes, header.len);
	if (packing == PACK_ZSTD) {
		struct buf buf CLEANUP(buf_deinit) = {0};
		cr_assert_null(codec_compress_zstd(plain, len, 3, &buf));
		cr_assert_leq(header.len + buf.len, cap);
		memcpy(out + header.len, buf.data, buf.len);
		return header.len + buf.len;
	}
	uLongf packed_len = cap - header.len;
	cr_assert_eq(compress2(out + header.len, &packed_len, plain, len, 6), Z_OK);
	return header.len + packed_len;
}

static void check_packed(bool is_64, bool big_endian, enum packing packing)
{
	static uint8_t plain[PLAIN_LEN], packed[2 * PLAIN_LEN];
	struct elf_image m;

	fill_plain(plain);
	image_begin(&m, is_64, big_endian);
	size_t len = pack(&m, packing, plain, PLAIN_LEN, PLAIN_LEN, packed, sizeof(packed));
	image_section(&m, packing == PACK_GNU ? ".zdebug_info" : ".debug_info", SHT_PROGBITS,
		packing == PACK_GNU ? 0 : SHF_COMPRESSED, 0, packed, len);
	image_finish(&m);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	const struct elffile_section *info = elffile_find(file, ".debug_info");
	struct reader r, again;

	cr_assert_not_null(info);
	cr_assert_eq(info->size, PLAIN_LEN);
	cr_assert_null(elffile_load(file, info, &r));
	cr_assert_eq(reader_left(&r), PLAIN_LEN);
	cr_assert_eq(memcmp(r.pos, plain, PLAIN_LEN), 0);
	cr_assert_null(elffile_load(file, info, &again));
	cr_assert_eq(again.pos, r.pos, "inflated twice");
	elffile_release(file, info);
	elffile_release(file, info);
	cr_assert_null(elffile_load(file, info, &again));
	cr_assert_eq(memcmp(again.pos, plain, PLAIN_LEN), 0);
}

Test(elffile_load, inflates_zlib_64_bits) { check_packed(true, false, PACK_ZLIB); }
Test(elffile_load, inflates_zlib_32_bits_big_endian) { check_packed(false, true, PACK_ZLIB); }
Test(elffile_load, inflates_zstd) { check_packed(true, false, PACK_ZSTD); }
Test(elffile_load, inflates_legacy_zdebug) { check_packed(true, false, PACK_GNU); }

/* Opens a file with one section of PLAIN_LEN bytes that claims to have @p claimed. */
static struct err *load_claiming(enum packing packing, uint64_t claimed, const struct elffile_limits *limits, size_t cut)
{
	static uint8_t plain[PLAIN_LEN], packed[2 * PLAIN_LEN];
	struct elf_image m;
	struct elffile *file CLEANUP(elffile_closep) = NULL;
	struct reader r;

	fill_plain(plain);
	image_begin(&m, true, false);
	size_t len = pack(&m, packing, plain, PLAIN_LEN, claimed, packed, sizeof(packed)) - cut;
	image_section(&m, ".debug_info", SHT_PROGBITS, SHF_COMPRESSED, 0, packed, len);
	image_finish(&m);
	TRY(elffile_open(m.bytes, m.len, "t", limits, &file));
	return elffile_load(file, elffile_find(file, ".debug_info"), &r);
}

static void expect_load_error(struct err *e, enum err_code code_wanted, const char *words)
{
	cr_assert_not_null(e, "was loaded");
	cr_assert_not_null(strstr(err_message(e), words), "\"%s\" does not contain \"%s\"", err_message(e), words);
	cr_assert_eq(err_code(e), code_wanted, "%s", err_message(e));
	err_free(e);
}

Test(elffile_load, refuses_a_section_over_its_limit)
{
	struct elffile_limits limits = {.section_bytes = PLAIN_LEN - 1};
	expect_load_error(load_claiming(PACK_ZLIB, PLAIN_LEN, &limits, 0), ERR_LIMIT,
		"section 1 (.debug_info): 100000 bytes inflated, more than 99999");
	limits.section_bytes = PLAIN_LEN;
	cr_assert_null(load_claiming(PACK_ZLIB, PLAIN_LEN, &limits, 0));
}

Test(elffile_load, refuses_a_section_over_the_total_limit)
{
	struct elffile_limits limits = {.total_bytes = PLAIN_LEN - 1};
	expect_load_error(load_claiming(PACK_ZSTD, PLAIN_LEN, &limits, 0), ERR_LIMIT,
		"section 1 (.debug_info): 100000 bytes inflated beside 0 held, more than 99999");
}

Test(elffile_load, refuses_a_bomb_by_its_claim_alone)
{
	expect_load_error(load_claiming(PACK_ZLIB, UINT32_MAX, NULL, 0), ERR_FORMAT, "cannot inflate to 4294967295");
	expect_load_error(load_claiming(PACK_ZLIB, UINT64_MAX, NULL, 0), ERR_LIMIT, "18446744073709551615 bytes inflated");
}

Test(elffile_load, refuses_a_size_that_is_not_the_streams)
{
	expect_load_error(load_claiming(PACK_ZLIB, PLAIN_LEN - 1, NULL, 0), ERR_FORMAT, "section 1 (.debug_info)");
	expect_load_error(load_claiming(PACK_ZLIB, PLAIN_LEN + 1, NULL, 0), ERR_FORMAT, "section 1 (.debug_info)");
	expect_load_error(load_claiming(PACK_ZSTD, PLAIN_LEN - 1, NULL, 0), ERR_FORMAT, "section 1 (.debug_info)");
	expect_load_error(load_claiming(PACK_ZSTD, PLAIN_LEN + 1, NULL, 0), ERR_FORMAT, "section 1 (.debug_info)");
}

Test(elffile_load, refuses_a_truncated_stream)
{
	expect_load_error(load_claiming(PACK_ZLIB, PLAIN_LEN, NULL, 10), ERR_FORMAT, "section 1 (.debug_info)");
	expect_load_error(load_claiming(PACK_ZSTD, PLAIN_LEN, NULL, 10), ERR_FORMAT, "section 1 (.debug_info)");
}

Test(elffile_load, refuses_an_unknown_compression)
{
	struct elf_image m;
	static const uint8_t header[24] = {77};
	struct reader r;

	image_begin(&m, true, false);
	image_section(&m, ".debug_info", SHT_PROGBITS, SHF_COMPRESSED, 0, header, sizeof(header));
	image_finish(&m);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	expect_load_error(elffile_load(file, elffile_find(file, ".debug_info"), &r), ERR_UNSUPPORTED,
		"t: .debug_info: unknown compression 77");
}

Test(elffile_open, refuses_a_section_both_allocated_and_compressed)
{
	struct elf_image m;
	image_begin(&m, true, false);
	image_section(&m, ".text", SHT_PROGBITS, code | SHF_COMPRESSED, 0x1000, "123456789012345678901234", 24);
	image_finish(&m);
	expect_refused(&m, ERR_FORMAT, "section 1 (.text): both allocated and compressed");
}

Test(elffile_open, refuses_a_compressed_section_without_its_header)
{
	struct elf_image m;
	image_begin(&m, true, false);
	image_section(&m, ".debug_info", SHT_PROGBITS, SHF_COMPRESSED, 0, "12345678901234567890123", 23);
	image_finish(&m);
	expect_refused(&m, ERR_FORMAT, "section 1 (.debug_info): too short for its compression header");
}

/* .debug_sup of DWARF 5: version, is_supplementary, path, checksum. */
static void make_sup(struct elf_image *m, const char *bytes, size_t len)
{
	image_begin(m, true, false);
	image_section(m, ".debug_sup", SHT_PROGBITS, 0, 0, bytes, len);
	image_finish(m);
}

Test(elffile_debugaltlink, reads_debug_sup_of_both_sides)
{
	struct elf_image m;
	struct build_id id;

	make_sup(&m, "\5\0\0a.sup\0\2\xab\xcd", 12);
	struct elffile *file CLEANUP(elffile_closep) = must_open(&m);
	cr_expect_str_eq(elffile_debugaltlink(file, &id), "a.sup");
	cr_expect(id.len == 2 && id.bytes[0] == 0xab && id.bytes[1] == 0xcd);
	cr_expect_eq(elffile_build_id(file)->len, 0);
	make_sup(&m, "\5\0\1\0\2\xab\xcd", 7);
	struct elffile *common CLEANUP(elffile_closep) = must_open(&m);
	cr_expect_null(elffile_debugaltlink(common, &id));
	cr_expect_eq(elffile_build_id(common)->len, 2);
}

Test(elffile_debugaltlink, refuses_a_damaged_debug_sup)
{
	static const struct {
		const char *bytes;
		size_t len;
	} damaged[] = {{"\5\0\0a.sup", 8}, {"\6\0\0a\0\2\xab\xcd", 8}, {"\5\0\0a\0\0", 6}, {"\5\0\0a\0\xff\1", 7}, {"\5\0\0a\0\4\1", 7}};
	struct elf_image m;

	for (size_t i = 0; i < ARRAY_SIZE(damaged); i++) {
		make_sup(&m, damaged[i].bytes, damaged[i].len);
		expect_refused(&m, ERR_FORMAT, "not a path and a checksum");
	}
}
