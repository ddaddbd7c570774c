// SPDX-License-Identifier: Apache-2.0
/*
 * Several threads load, release and load again the sections of one file. A plain program, since Criterion does not run under
 * ThreadSanitizer. Even threads read sections 1 to 4, which nobody releases; odd threads have a section each that they release.
 */
#include "symbolizer/build/elf_file.h"

#include "tests/build/elf_image.h"

#include <pthread.h>
#include <stdio.h>

enum { THREADS = 8, SHARED = 4, ROUNDS = 50, PLAIN = 200000 };

static uint8_t plain[PLAIN];
static struct elf_image image;
static struct elffile *file;

static bool load_is_right(const struct elffile_section *section)
{
	struct reader r;
	struct err *e = elffile_load(file, section, &r);
	bool right = !e && reader_left(&r) == PLAIN && memcmp(r.pos, plain, PLAIN) == 0;

	if (e)
		fprintf(stderr, "%s\n", err_message(e));
	err_free(e);
	return right;
}

static void *run(void *argument)
{
	const size_t number = (size_t)(uintptr_t)argument;
	uintptr_t failures = 0;

	for (size_t round = 0; round < ROUNDS; round++) {
		const struct elffile_section *section =
			elffile_section(file, number % 2 == 0 ? 1 + (round + number) % SHARED : 1 + SHARED + number / 2);

		failures += !load_is_right(section);
		if (number % 2 == 1)
			elffile_release(file, section);
	}
	return (void *)failures;
}

int main(void)
{
	struct buf packed CLEANUP(buf_deinit) = {0};
	struct elf_image header = {.is_64 = true};
	pthread_t threads[THREADS];
	uintptr_t failures = 0;

	for (size_t i = 0; i < PLAIN; i++)
		plain[i] = (uint8_t)(i >> 9);
	image_put(&header, 2, 8); /* ELFCOMPRESS_ZSTD */
	image_put(&header, PLAIN, 8);
	image_put(&header, 1, 8);
	struct err *e = buf_append(&packed, header.bytes, header.len);
	if (!e)
		e = codec_compress_zstd(plain, PLAIN, 3, &packed);
	image_begin(&image, true, false);
	for (size_t i = 0; !e && i < SHARED + THREADS / 2; i++)
		image_section(&image, ".debug_x", SHT_PROGBITS, SHF_COMPRESSED, 0, packed.data, packed.len);
	image_finish(&image);
	if (!e)
		e = elffile_open(image.bytes, image.len, "t", NULL, &file);
	if (e) {
		fprintf(stderr, "elf_threads: %s\n", err_message(e));
		return 1;
	}
	for (size_t i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)i) != 0)
			abort();
	for (size_t i = 0; i < THREADS; i++) {
		void *result;
		if (pthread_join(threads[i], &result) != 0)
			abort();
		failures += (uintptr_t)result;
	}
	elffile_close(file);
	printf("%d threads, %d rounds, %zu failures\n", THREADS, ROUNDS, (size_t)failures);
	return failures ? 1 : 0;
}
