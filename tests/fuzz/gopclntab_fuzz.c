// SPDX-License-Identifier: Apache-2.0
/*
 * .gopclntab and what the builder reads beside it, in an ELF image of the usual layout (tests/build/gopclntab_test.c). The input: byte order,
 * class, and whether the table was merged into .data.rel.ro of a program with relocations, which the inline tree then begins with (1 byte), lengths of .gopclntab and moduledata (2 bytes each, little-endian), these two, the inline tree.
 */
#include "base/reader.h"
#include "tests/build/elf_image.h"
#include "tests/fuzz/build_check.h"

enum { TABLE = 0x10000, MODULE = 0x5000, TREE = 0x4000, TEXT = 0x1000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct elf_image m;
	struct reader r = reader_init(data, size, false, "input");
	const uint8_t flags = reader_u8(&r);
	const uint16_t table_len = reader_u16(&r), module_len = reader_u16(&r);
	const uint8_t *table = reader_bytes(&r, table_len), *module = reader_bytes(&r, module_len);
	const size_t tree_len = reader_left(&r);

	if (r.failed || size > 64 * 1024)
		return 0;
	image_begin(&m, !(flags & 1), flags & 2);
	image_section(&m, ".text", SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, TEXT, NULL, 0x1000);
	const bool merged = flags & 4;
	image_section(&m, merged ? ".data.rel.ro" : ".gopclntab", SHT_PROGBITS, SHF_ALLOC | (merged ? SHF_WRITE : 0), TABLE, table, table_len);
	if (merged) {
		image_section(&m, ".go.buildinfo", SHT_PROGBITS, SHF_ALLOC, 0x8000, "Go", 2);
		image_section(&m, ".rela.dyn", SHT_RELA, SHF_ALLOC, 0x100, r.pos, tree_len < 0x1000 ? tree_len : 0x1000);
	}
	image_section(&m, ".rodata", SHT_PROGBITS, SHF_ALLOC, TREE, r.pos, tree_len < 0x1000 ? tree_len : 0x1000);
	image_section(&m, ".data", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, MODULE, module, module_len < 0x1000 ? module_len : 0x1000);
	image_finish(&m);
	struct build_options options = {.binary = {.bytes = m.bytes, .len = m.len, .name = "fuzz"}, .threads = 1, .memory_max = 32 << 20};
	build_check(&options);
	return 0;
}
