// SPDX-License-Identifier: Apache-2.0
/* Kernels out of the files that they are packed in, as fixtures/kernel/build makes them, and files that lie. */
#include "symbolizer/build/kernel_image.h"

#include "symbolizer/build/debug_file.h"
#include "symbolizer/build/kernel.h"
#include "tests/build/elf_image.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

static struct buf packed;
static struct kernel_image image;

static void ok(struct err *e)
{
	cr_assert_null(e, "%s", e ? err_message(e) : "");
}

static void fresh(void)
{
	buf_deinit(&packed);
	kernel_image_deinit(&image);
	image = (struct kernel_image){0};
}

static void read_fixture(const char *name, struct buf *ret)
{
	char path[1024];

	(void)snprintf(path, sizeof(path), "%s/%s", getenv("CAIRN_KERNEL"), name);
	FILE *file = fopen(path, "rb");
	cr_assert_not_null(file, "%s", path);
	ret->len = 0;
	do
		ok(buf_reserve(ret, 1 << 16));
	while ((ret->len += fread(ret->data + ret->len, 1, 1 << 16, file)) % (1 << 16) == 0 && !feof(file));
	(void)fclose(file);
}

static struct err *unpack(uint64_t limit)
{
	struct kernel_image got;

	/* A copy of just that length, so that a read past it is seen by AddressSanitizer. */
	uint8_t *exact = malloc(packed.len ? packed.len : 1);
	memcpy(exact, packed.data, packed.len);
	struct err *e = kernel_image_unpack(exact, packed.len, "k", limit, &got);
	free(exact);
	if (!e) {
		kernel_image_deinit(&image);
		image = got;
	}
	return e;
}

static void expect_error(enum err_code code, const char *words)
{
	struct err *e = unpack(UINT64_MAX);

	cr_assert_not_null(e, "expected: %s", words);
	cr_assert_eq(err_code(e), code, "%s", err_message(e));
	cr_assert_not_null(strstr(err_message(e), words), "%s: %s", words, err_message(e));
	err_free(e);
}

TestSuite(kernel_image, .init = fresh, .fini = fresh);

Test(kernel_image, gives_back_what_was_packed_in_any_codec)
{
	static const struct {
		const char *name, *inside;
		enum kernel_image_form form;
	} cases[] = {
		{"vmlinuz-gzip", "vmlinux-stripped", KERNEL_IMAGE_BZIMAGE},
		{"vmlinuz-xz", "vmlinux-stripped", KERNEL_IMAGE_BZIMAGE},
		{"vmlinuz-lzma", "vmlinux-stripped", KERNEL_IMAGE_BZIMAGE},
		{"vmlinuz-zstd", "vmlinux-stripped", KERNEL_IMAGE_BZIMAGE},
		{"vmlinuz-lz4", "vmlinux-stripped", KERNEL_IMAGE_BZIMAGE},
		{"module-stripped.ko.gz", "module-stripped.ko", KERNEL_IMAGE_STREAM},
		{"module-stripped.ko.xz", "module-stripped.ko", KERNEL_IMAGE_STREAM},
		{"module-stripped.ko.zst", "module-stripped.ko", KERNEL_IMAGE_STREAM},
	};
	struct buf inside = {0};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		read_fixture(cases[i].name, &packed);
		read_fixture(cases[i].inside, &inside);
		cr_assert_eq(kernel_image_detect(packed.data, packed.len), cases[i].form, "%s", cases[i].name);
		cr_assert_eq(kernel_image_detect(packed.data, 1024 < packed.len ? 1024 : packed.len), cases[i].form);
		ok(unpack(UINT64_MAX));
		cr_assert_eq(image.elf.len, inside.len, "%s: %zu bytes", cases[i].name, image.elf.len);
		cr_assert_eq(memcmp(image.elf.data, inside.data, inside.len), 0);
		struct err *e = unpack(inside.len - 1);
		cr_assert_not_null(e);
		cr_assert_eq(err_code(e), ERR_LIMIT, "%s", err_message(e));
		err_free(e);
	}
	read_fixture("module-stripped.ko", &packed);
	cr_assert_eq(kernel_image_detect(packed.data, packed.len), KERNEL_IMAGE_NONE);
	expect_error(ERR_INVALID, "nothing is packed");
	buf_deinit(&inside);
}

Test(kernel_image, of_a_bare_image_the_build_id_is_known_and_not_that_of_the_vdso_in_it)
{
	static const char *const names[] = {"Image", "Image.gz", "vmlinuz.efi"};
	struct elf_mapping vmlinux = {0};
	char path[1024];

	(void)snprintf(path, sizeof(path), "%s/vmlinux", getenv("CAIRN_KERNEL"));
	ok(elf_mapping_open(path, &vmlinux));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		read_fixture(names[i], &packed);
		ok(unpack(UINT64_MAX));
		cr_assert_eq(image.elf.len, 0);
		cr_assert_eq(image.elf_machine, EM_AARCH64);
		cr_assert_eq(image.build_id.len, 20);
		cr_assert(build_id_equal(&image.build_id, elffile_build_id(vmlinux.elf)), "%s", names[i]);
	}
	elf_mapping_deinit(&vmlinux);
}

Test(kernel_image, every_truncation_is_an_error)
{
	static const char *const names[] = {"vmlinuz-xz", "vmlinuz-lz4", "vmlinuz-zstd", "module-stripped.ko.xz", "vmlinuz.efi"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		read_fixture(names[i], &packed);
		size_t whole = packed.len - (strncmp(names[i], "vmlinuz-", 8) == 0 ? 300 : 0); /* what follows the payload is not read */
		for (packed.len = whole - 1; packed.len > 0; packed.len -= packed.len < 700 ? 1 : 61) {
			struct err *e = unpack(UINT64_MAX);
			cr_assert_not_null(e, "%s cut to %zu", names[i], packed.len);
			err_free(e);
		}
	}
}

/* ---- by hand ---- */

enum { PAYLOAD = 0x400 };

static void put32(size_t at, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		packed.data[at + i] = (uint8_t)(value >> (8 * i));
}

/* A bzImage with one setup sector and this payload, at 0x400. */
static void bzimage(const void *payload, size_t len)
{
	packed.len = 0;
	ok(buf_reserve(&packed, PAYLOAD + len));
	memset(packed.data, 0, PAYLOAD);
	packed.data[0x1f1] = 1;
	memcpy(packed.data + 0x1fe, "\x55\xaa", 2);
	memcpy(packed.data + 0x202, "HdrS", 4);
	put32(0x206, 0x20f);
	put32(0x24c, (uint32_t)len);
	packed.len = PAYLOAD;
	ok(buf_append(&packed, payload, len));
}

static void gzip(const void *bytes, size_t len, struct buf *ret)
{
	ret->len = 0;
	ok(codec_compress_gzip(bytes, len, 1, ret));
}

Test(kernel_image, a_size_that_lies_is_told)
{
	struct buf payload = {0};

	read_fixture("vmlinuz-xz", &packed);
	struct buf original = {0};
	ok(buf_append(&original, packed.data, packed.len));
	size_t trailer = packed.len - 300 - 4;
	static const struct {
		uint32_t promised;
		enum err_code code;
		const char *words;
	} lies[] = {
		{1000, ERR_FORMAT, "more than the 1000 bytes that it says"},
		{25000000, ERR_FORMAT, "not the 25000000 that it says"},
		{UINT32_MAX, ERR_LIMIT, "unpacks to 4294967295 bytes, more than"},
		{0, ERR_FORMAT, "unpacks to nothing"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		put32(trailer, lies[i].promised);
		expect_error(lies[i].code, lies[i].words);
	}
	/* gzip says it itself: a member that does not hold what its end says. */
	gzip("\177ELF and so on", 13, &payload);
	bzimage(payload.data, payload.len);
	ok(unpack(UINT64_MAX));
	cr_assert_eq(image.elf.len, 13);
	put32(packed.len - 4, 14);
	expect_error(ERR_FORMAT, "gzip");
	buf_deinit(&payload);
	buf_deinit(&original);
}

Test(kernel_image, a_payload_outside_of_the_file_is_refused)
{
	struct buf payload = {0};

	gzip("\177ELF and so on", 13, &payload);
	bzimage(payload.data, payload.len);
	put32(0x248, (uint32_t)payload.len);
	expect_error(ERR_FORMAT, "passes its end");
	put32(0x248, UINT32_MAX);
	expect_error(ERR_FORMAT, "passes its end");
	put32(0x248, 0);
	put32(0x24c, UINT32_MAX);
	expect_error(ERR_FORMAT, "passes its end");
	put32(0x24c, 3);
	expect_error(ERR_FORMAT, "passes its end");
	put32(0x206, 0x207);
	expect_error(ERR_UNSUPPORTED, "boot protocol 2.07");
	packed.len = 0x210;
	expect_error(ERR_FORMAT, "ends in its header");
	buf_deinit(&payload);
}

Test(kernel_image, what_is_packed_twice_or_is_no_kernel_is_refused)
{
	struct buf once = {0}, twice = {0};

	gzip("this is text, and no program", 28, &once);
	bzimage(once.data, once.len);
	expect_error(ERR_FORMAT, "no ELF file");
	packed.len = 0;
	ok(buf_append(&packed, once.data, once.len));
	expect_error(ERR_FORMAT, "neither an ELF file nor a kernel image");
	gzip("\177ELF and so on", 13, &once);
	gzip(once.data, once.len, &twice);
	packed.len = 0;
	ok(buf_append(&packed, twice.data, twice.len));
	expect_error(ERR_FORMAT, "neither an ELF file nor a kernel image");
	bzimage(twice.data, twice.len);
	expect_error(ERR_FORMAT, "no ELF file");
	bzimage(once.data, once.len);
	gzip(packed.data, packed.len, &twice);
	packed.len = 0;
	ok(buf_append(&packed, twice.data, twice.len));
	expect_error(ERR_FORMAT, "neither an ELF file nor a kernel image");
	bzimage("BZh9 and what bzip2 makes of it", 31);
	expect_error(ERR_UNSUPPORTED, "packed by bzip2");
	buf_deinit(&once);
	buf_deinit(&twice);
}

Test(kernel_image, a_bomb_costs_no_more_than_the_ratio_allows)
{
	enum { BOMB_BYTES = 80 << 20 };
	uint8_t *zeros = calloc(1, BOMB_BYTES);

	memcpy(zeros, "\177ELF", 4);
	gzip(zeros, BOMB_BYTES, &packed);
	free(zeros);
	cr_assert_lt(packed.len, BOMB_BYTES / KERNEL_IMAGE_RATIO_MAX);
	expect_error(ERR_LIMIT, "more than the limit");
	struct buf payload = packed;
	packed = (struct buf){0};
	bzimage(payload.data, payload.len);
	expect_error(ERR_LIMIT, "it says that it unpacks to 83886080 bytes");
	buf_deinit(&payload);
}

Test(kernel_image, a_bare_image_with_no_or_two_build_ids_cannot_be_told)
{
	static const uint8_t note[] = {4, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0, 1, 2, 3, 4, 5, 6, 7, 8};
	enum { FIRST = 0x100, SECOND = 0x200, BARE_BYTES = 0x300 };

	ok(buf_reserve(&packed, BARE_BYTES));
	memset(packed.data, 0, BARE_BYTES);
	memcpy(packed.data + 56, "RSC\x05", 4);
	packed.len = BARE_BYTES;
	expect_error(ERR_UNSUPPORTED, "without a build ID");
	memcpy(packed.data + FIRST, note, sizeof(note));
	memcpy(packed.data + SECOND, note, sizeof(note)); /* the same twice */
	ok(unpack(UINT64_MAX));
	cr_assert_eq(image.elf_machine, EM_RISCV);
	cr_assert_eq(image.build_id.len, 8);
	packed.data[SECOND + 20] ^= 1;
	expect_error(ERR_UNSUPPORTED, "several build IDs");
	packed.data[SECOND + 4] = 0xff; /* no note: it passes the end of anything */
	ok(unpack(UINT64_MAX));
	packed.len = FIRST + sizeof(note) - 1;
	expect_error(ERR_UNSUPPORTED, "without a build ID");
}

/* ---- what is a kernel, and where its text is ---- */

static struct elf_image m;

static enum kernel_kind kind_of(uint64_t *text_ret)
{
	struct elffile *file CLEANUP(elffile_closep) = NULL;

	image_finish(&m);
	ok(elffile_open(m.bytes, m.len, "k", NULL, &file));
	cr_assert(kernel_text(file, text_ret));
	return kernel_kind(file);
}

Test(kernel_text, is_that_of_the_fixtures)
{
	static const struct {
		const char *name;
		enum kernel_kind kind;
		uint64_t text;
	} cases[] = {
		{"vmlinux", KERNEL_VMLINUX, 0xffffffff81000000},
		{"vmlinuz-zstd", KERNEL_VMLINUX, 0xffffffff81000000}, /* no symbols */
		{"module.ko", KERNEL_MODULE, 0},
		{"module.ko.debug", KERNEL_MODULE, 0},
		{"module-stripped.ko.xz", KERNEL_MODULE, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct elf_mapping mapping CLEANUP(elf_mapping_deinit) = {0};
		char path[1024];
		uint64_t text;
		(void)snprintf(path, sizeof(path), "%s/%s", getenv("CAIRN_KERNEL"), cases[i].name);
		ok(elf_mapping_open(path, &mapping));
		cr_expect_eq(kernel_kind(mapping.elf), cases[i].kind, "%s", cases[i].name);
		cr_expect(kernel_text(mapping.elf, &text) && text == cases[i].text, "%s", cases[i].name);
	}
}

Test(kernel_text, of_a_module_whose_text_is_not_its_first_code)
{
	const uint64_t code = SHF_ALLOC | SHF_EXECINSTR;
	uint64_t text;

	image_begin(&m, true, false);
	image_put_at(&m, 16, ET_REL, 2);
	image_section(&m, ".init.text", SHT_NOBITS, code, 0, NULL, 0x50); /* into memory of its own */
	image_section(&m, ".noinstr.text", SHT_NOBITS, code, 0, NULL, 0x30);
	image_section(&m, ".text", SHT_NOBITS, code, 0, NULL, 0x100);
	image_section(&m, ".gnu.linkonce.this_module", SHT_NOBITS, SHF_ALLOC | SHF_WRITE, 0, NULL, 64);
	cr_assert_eq(kind_of(&text), KERNEL_MODULE);
	cr_assert_eq(text, 0x30);
}

Test(kernel_kind, programs_and_objects_are_none)
{
	const uint64_t code = SHF_ALLOC | SHF_EXECINSTR;
	uint64_t text;

	image_begin(&m, true, false);
	image_section(&m, ".text", SHT_NOBITS, code, 0x1000, NULL, 0x100);
	image_section(&m, ".init.text", SHT_NOBITS, code, 0x2000, NULL, 0x100);
	cr_assert_eq(kind_of(&text), KERNEL_NONE);
	cr_assert_eq(text, 0x1000);
	image_begin(&m, true, false);
	image_put_at(&m, 16, ET_REL, 2);
	image_section(&m, ".text", SHT_NOBITS, code, 0, NULL, 0x100);
	cr_assert_eq(kind_of(&text), KERNEL_NONE);
	/* arm64: the head, with _text, lies below .text. */
	image_begin(&m, true, false);
	image_section(&m, ".head.text", SHT_NOBITS, code, 0x10000, NULL, 0x100);
	image_section(&m, ".text", SHT_NOBITS, code, 0x20000, NULL, 0x100);
	image_section(&m, ".init.text", SHT_NOBITS, code, 0x30000, NULL, 0x100);
	image_section(&m, "__ex_table", SHT_NOBITS, SHF_ALLOC, 0x40000, NULL, 0x100);
	cr_assert_eq(kind_of(&text), KERNEL_VMLINUX);
	cr_assert_eq(text, 0x10000);
}

/* ---- debug files ---- */

Test(kernel_debug_path, names_the_places_of_distributions)
{
	static const struct {
		const char *path, *places[5];
	} cases[] = {
		{"/boot/vmlinuz-6.1.0-50-amd64",
			{"/d/boot/vmlinux-6.1.0-50-amd64", "/d/lib/modules/6.1.0-50-amd64/vmlinux", "/d/usr/lib/modules/6.1.0-50-amd64/vmlinux"}},
		{"/boot/vmlinux-6.4.xz", {"/d/boot/vmlinux-6.4", "/d/lib/modules/6.4/vmlinux", "/d/usr/lib/modules/6.4/vmlinux"}},
		{"/usr/lib/modules/6.9/vmlinuz", {"/d/boot/vmlinux-6.9", "/d/lib/modules/6.9/vmlinux", "/d/usr/lib/modules/6.9/vmlinux"}},
		{"/usr/lib/modules/6.9/kernel/x.ko.zst",
			{"/d/lib/modules/6.9/kernel/x.ko", "/d/usr/lib/modules/6.9/kernel/x.ko", "/d/lib/modules/6.9/kernel/x.ko.debug",
				"/d/usr/lib/modules/6.9/kernel/x.ko.debug"}},
		{"/tmp/x.ko", {NULL}},
		{"vmlinuz", {NULL}},
		{"/vmlinuz", {NULL}},
		{"/bin/ls", {NULL}},
	};
	char path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned n = 0;
		for (; kernel_debug_path("/d", cases[i].path, n, path); n++) {
			cr_assert_not_null(cases[i].places[n], "%s: %s", cases[i].path, path);
			cr_expect_str_eq(path, cases[i].places[n]);
		}
		cr_expect_null(cases[i].places[n], "%s: %u places", cases[i].path, n);
	}
}

static void shell(const char *command)
{
	cr_assert_eq(system(command), 0, "%s", command);
}

static void find_in(const char *binary, struct elf_mapping *debug, enum err_code wrong)
{
	static const char *const dirs[] = {"debug"};
	struct debug_file_search search = {.debug_dirs = dirs, .debug_dir_count = 1};
	struct elf_mapping mapping CLEANUP(elf_mapping_deinit) = {0};

	ok(elf_mapping_open(binary, &mapping));
	struct err *e = debug_file_find(&mapping, &search, debug);
	cr_assert_eq(e ? err_code(e) : 0, wrong, "%s: %s", binary, e ? err_message(e) : "");
	err_free(e);
}

Test(debug_file_find, finds_a_kernels_by_its_path_and_takes_it_by_its_build_id)
{
	char folder[] = "/tmp/cairn-kernel-test-XXXXXX", command[64];
	struct elf_mapping debug = {0};

	cr_assert_not_null(mkdtemp(folder));
	cr_assert_eq(chdir(folder), 0);
	shell("mkdir -p boot debug/boot lib/modules/6.1/net debug/lib/modules/6.1/net && cp $CAIRN_KERNEL/vmlinuz-gzip boot/vmlinuz-6.1 && "
	      "cp $CAIRN_KERNEL/vmlinux debug/boot/vmlinux-6.1 && cp $CAIRN_KERNEL/module-stripped.ko.xz lib/modules/6.1/net/tiny.ko.xz && "
	      "cp $CAIRN_KERNEL/vmlinux debug/lib/modules/6.1/net/tiny.ko");
	find_in("boot/vmlinuz-6.1", &debug, 0);
	cr_assert_str_eq(debug.path, "debug/boot/vmlinux-6.1");
	elf_mapping_deinit(&debug);
	find_in("lib/modules/6.1/net/tiny.ko.xz", &debug, ERR_MISMATCH);
	shell("cp $CAIRN_KERNEL/module.ko.debug debug/lib/modules/6.1/net/tiny.ko.debug");
	find_in("lib/modules/6.1/net/tiny.ko.xz", &debug, 0);
	cr_assert_str_eq(debug.path, "debug/lib/modules/6.1/net/tiny.ko.debug");
	elf_mapping_deinit(&debug);
	cr_assert_eq(chdir("/"), 0);
	(void)snprintf(command, sizeof(command), "rm -rf %s", folder);
	shell(command);
}
