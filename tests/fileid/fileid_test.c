// SPDX-License-Identifier: Apache-2.0
/*
 * The known answers come from the OpenTelemetry eBPF profiler's own tests and real payloads, and, for the byte pattern
 * byte[i] = i & 0xff, from sha256sum.
 */
#include "fileid/fileid.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct pattern_case {
	size_t size;
	char want[FILEID_HEX_SIZE];
};

static const struct pattern_case patterns[] = {
	{0, "af5570f5a1810b7af78caf4bc70a660f"},
	{1, "52807a4607ea5debf0b7d4ccb452f4af"},
	{4095, "2783f2e8acc22d24d559f03b9f0c820c"},
	{4096, "85cb3aa4a10dc6668d6bf0c5802e9150"},
	{4097, "15cac832ee94e1cf7eb431e3424ea27e"},
	{8191, "1f57976eeca3337a1ff17814cc39ebab"},
	{8192, "18db0dcc5a0e6a57e1a1718a5fb2efdc"},
	{8193, "f2cdcfc87897482c2304c1550798cdbd"},
	{12288, "a2e87489f704b4ef6301045470ff58e6"},
};

static void check_hex(const struct fileid *id, const char *want)
{
	char text[FILEID_HEX_SIZE];

	fileid_format_hex(id, text);
	cr_assert_str_eq(text, want);
}

static uint8_t pattern_bytes[12288];

static void fill_pattern(void)
{
	for (size_t i = 0; i < sizeof(pattern_bytes); i++)
		pattern_bytes[i] = (uint8_t)i;
}

static struct fileid parse(const char *text)
{
	struct fileid id;

	cr_assert(fileid_parse(text, strlen(text), &id), "%s", text);
	return id;
}

Test(fileid_from_memory, gives_the_known_answers_for_all_sizes_of_the_pattern)
{
	fill_pattern();
	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
		struct fileid id;
		cr_assert_null(fileid_from_memory(pattern_bytes, patterns[i].size, &id));
		check_hex(&id, patterns[i].want);
	}
}

Test(fileid_from_memory, gives_the_known_answers_of_the_profiler)
{
	static const uint8_t elf[] = {0x7f, 0x45, 0x4c, 0x46, 0, 1, 2, 3, 4};
	static const uint8_t zeros[123];
	char text[FILEID_BASE64URL_SIZE];
	struct fileid id;

	cr_assert_null(fileid_from_memory(elf, sizeof(elf), &id));
	check_hex(&id, "caf6e5907166ac76eef618e5f7f59cd9");
	cr_assert_null(fileid_from_memory(zeros, sizeof(zeros), &id));
	check_hex(&id, "f4c1e5fe2f28034fcceb0776ec00b125");
	fileid_format_base64url(&id, text);
	cr_assert_str_eq(text, "9MHl_i8oA0_M6wd27ACxJQ");
}

Test(fileid_from_memory, takes_no_bytes_at_all)
{
	struct fileid id;

	cr_assert_null(fileid_from_memory(NULL, 0, &id));
	check_hex(&id, patterns[0].want);
}

Test(fileid_from_path, equals_the_memory_image_and_leaves_the_offset_alone)
{
	char path[] = "/tmp/cairn-fileid-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	fill_pattern();
	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
		struct fileid id;
		cr_assert_eq(ftruncate(fd, 0), 0);
		cr_assert_eq(pwrite(fd, pattern_bytes, patterns[i].size, 0), (ssize_t)patterns[i].size);
		cr_assert_null(fileid_from_path(path, &id));
		check_hex(&id, patterns[i].want);
		cr_assert_eq(lseek(fd, 0, SEEK_SET), 0);
		cr_assert_null(fileid_from_fd(fd, &id));
		check_hex(&id, patterns[i].want);
		cr_assert_eq(lseek(fd, 0, SEEK_CUR), 0);
	}
	close(fd);
	unlink(path);
}

Test(fileid_from_path, names_a_file_that_is_not_there)
{
	struct fileid id;
	struct err *e = fileid_from_path("/nonexistent/file", &id);

	cr_assert_eq(err_code(e), ERR_OS);
	cr_assert_str_eq(err_message(e), "open /nonexistent/file: No such file or directory");
	err_free(e);
}

Test(fileid_from_path, refuses_folders_devices_and_pipes)
{
	char fifo[] = "/tmp/cairn-fifo-XXXXXX";
	struct fileid id;

	cr_assert_not_null(mkdtemp(fifo));
	cr_assert_eq(rmdir(fifo), 0);
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	const char *const paths[] = {"/tmp", "/dev/null", fifo};
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct err *e = fileid_from_path(paths[i], &id);
		cr_assert_eq(err_code(e), ERR_INVALID);
		err_free(e);
	}
	unlink(fifo);
}

static struct fileid kernel(const char *build_id)
{
	uint8_t bytes[32];
	size_t len = strlen(build_id) / 2;

	for (size_t i = 0; i < len; i++)
		cr_assert_eq(sscanf(build_id + 2 * i, "%2hhx", &bytes[i]), 1);
	return fileid_from_kernel_build_id(bytes, len);
}

Test(fileid_from_kernel_build_id, gives_the_known_answers)
{
	struct fileid id = kernel("f8e1cf0f60558098edaec164ac7749df");
	check_hex(&id, "026a2d6a60ee6b4eb8ec85adf2e76f4d");
	struct fileid swapped = fileid_swap_halves(&id);
	check_hex(&swapped, "b8ec85adf2e76f4d026a2d6a60ee6b4e");

	id = kernel("e97b80c39b0187ecf6cb349fb27e7707b58a8fe2");
	check_hex(&id, "13790e90253d2847bb6867a591fdc870");
	id = kernel("04662ea949b98f6dba7c4a80b1905f17f0a5e07f");
	check_hex(&id, "3a85a53e0ae71586b3a55839713822cb");
}

Test(fileid_from_kernel_build_id, gives_the_unknown_kernel_below_8_bytes)
{
	struct fileid id = kernel("11223344556677");
	check_hex(&id, "fffffffffffffffdfffffffffffffffd");
	id = kernel("");
	check_hex(&id, "fffffffffffffffdfffffffffffffffd");
	id = kernel("1122334455667788");
	cr_assert_neq(id.bytes[0], 0xff);
}

Test(fileid_format_base64url, gives_the_known_answers)
{
	static const struct {
		const char *hex, *base64url;
	} cases[] = {
		{"12345678124397ff87654321877484a8", "EjRWeBJDl_-HZUMhh3SEqA"},
		{"12345678124397f5876543218774849e", "EjRWeBJDl_WHZUMhh3SEng"},
		/* The file IDs of symblib's test data, in the text forms that its users see. */
		{"c34f3585fca1b579fb458e827851a599", "w081hfyhtXn7RY6CeFGlmQ"},
		{"f4c1e5fe2f28034fcceb0776ec00b125", "9MHl_i8oA0_M6wd27ACxJQ"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[FILEID_BASE64URL_SIZE];
		struct fileid id = parse(cases[i].hex);
		fileid_format_base64url(&id, text);
		cr_assert_str_eq(text, cases[i].base64url);
		struct fileid again = parse(text);
		cr_assert(fileid_equal(&id, &again));
	}
}

Test(fileid_parse, reads_both_forms_of_every_byte)
{
	for (unsigned value = 0; value < 256; value++) {
		struct fileid id, again;
		char hex[FILEID_HEX_SIZE], base64url[FILEID_BASE64URL_SIZE];
		for (unsigned i = 0; i < FILEID_BYTES; i++)
			id.bytes[i] = (uint8_t)(value + 37 * i);
		fileid_format_hex(&id, hex);
		fileid_format_base64url(&id, base64url);
		again = parse(hex);
		cr_assert(fileid_equal(&id, &again));
		again = parse(base64url);
		cr_assert(fileid_equal(&id, &again));
	}
}

Test(fileid_parse, accepts_upper_hex)
{
	struct fileid upper = parse("CAF6E5907166AC76EEF618E5F7F59CD9");

	check_hex(&upper, "caf6e5907166ac76eef618e5f7f59cd9");
}

Test(fileid_parse, rejects_31_digits)
{
	struct fileid id;

	cr_assert_not(fileid_parse("caf6e5907166ac76eef618e5f7f59cd", 31, &id));
}

Test(fileid_parse, rejects_malformed_text_and_leaves_ret_alone)
{
	static const char *const bad[] = {
		"",
		"caf6e5907166ac76eef618e5f7f59cdg",
		"caf6e5907166ac76eef618e5f7f59cd9 ",
		"0xcaf6e5907166ac76eef618e5f7f59c",
		"9MHl_i8oA0_M6wd27ACxJ",
		"9MHl_i8oA0_M6wd27ACxJQ==",
		"9MHl/i8oA0/M6wd27ACxJQ", /* the other base64 alphabet */
		"9MHl_i8oA0_M6wd27ACxJR", /* spare bits that are not 0 */
		"9MHl_i8oA0_M6wd27ACx\nQ",
	};
	struct fileid id, before;

	memset(&id, 0x5a, sizeof(id));
	before = id;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_assert_not(fileid_parse(bad[i], strlen(bad[i]), &id), "%s", bad[i]);
	cr_assert_not(fileid_parse("9MHl_i8oA0_M6wd27ACxJ\0", 22, &id), "a NUL is no digit");
	cr_assert(fileid_equal(&id, &before));
}
