// SPDX-License-Identifier: Apache-2.0
/*
 * cairn-worker: descriptors in, frames out. See docs/worker.md.
 */
#include "base/digest.h"
#include "base/err.h"
#include "worker/convert.h"
#include "worker/image.h"
#include "worker/input.h"
#include "worker/options.h"
#include "worker/output.h"
#include "worker/package.h"
#include "sandbox/sandbox.h"

#include <iconv.h>
#include <locale.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/stat.h>

enum { EXIT_USAGE = 2, MALLOC_ARENAS = 16 };

/* What opens files when it is first used must be used before the door is shut. */
static struct err *warm_up(void)
{
	struct sha256 digest;

	/* With UTF-8 as the locale's charset libarchive converts names without asking iconv for modules. */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		return err_new(ERR_INTERNAL, "no locale C.UTF-8");
	iconv_t converter = iconv_open("UTF-8", "UTF-16BE"); /* loads gconv's index */
	if (converter != (iconv_t)-1)
		(void)iconv_close(converter);
	/*
	 * Past eight arenas malloc would count the CPUs, in /sys, to know how many it may have: say it beforehand. Another
	 * allocator (a sanitizer's) refuses and has no arenas.
	 */
	(void)mallopt(M_ARENA_MAX, MALLOC_ARENAS);
	return sha256_of("", 0, &digest); /* libcrypto's providers and configuration */
}

static uint64_t mapped_bytes(const struct worker_options *options)
{
	const int fds[] = {options->binary_fd, options->debug_fd, options->supplement_fd, options->split_fd, options->package_fd, options->sibling_fd,
		options->wanted_fd};
	uint64_t sum = options->scratch_fd >= 0 ? options->unpacked_bytes : 0;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		struct stat status;
		if (fds[i] >= 0 && fstat(fds[i], &status) == 0)
			sum += (uint64_t)status.st_size;
	}
	return sum;
}

static struct err *enter(const struct worker_options *options)
{
	struct sandbox_limits limits = {
		.memory_bytes = options->memory_bytes,
		.mapped_bytes = mapped_bytes(options),
		.cpu_seconds = options->cpu_seconds,
		.file_bytes = options->unpacked_bytes,
		.last_fd = worker_options_last_fd(options),
	};

	TRY(warm_up());
	return err_wrap(sandbox_enter(&limits), "sandbox");
}

static struct err *run_elf(const struct worker_options *options, struct output *output)
{
	CLEANUP(input_close) struct input binary = {0};
	CLEANUP(input_close) struct input debug = {0};
	CLEANUP(image_unmap) struct image supplement = {0};
	CLEANUP(image_unmap) struct image split = {0};
	const bool alone = options->binary_fd < 0; /* a debug file */
	struct convert_input input = {.binary = &binary.elf, .name = alone ? "debug file" : "binary", .member = ""};
	struct protocol_needs needs;

	if (options->supplement_fd >= 0) {
		TRY(image_map(options->supplement_fd, "supplement", &supplement));
		input.supplement = &supplement;
	}
	if (options->split_fd >= 0) {
		TRY(image_map(options->split_fd, "split DWARF", &split));
		input.splits = &split;
		input.split_count = 1;
	}
	TRY(input_open(alone ? options->debug_fd : options->binary_fd, input.name, options->unpacked_bytes, &binary));
	input.packed_bytes = binary.is_packed ? binary.file.len : 0;
	if (!alone && options->debug_fd >= 0) {
		TRY(input_open(options->debug_fd, "debug file", options->unpacked_bytes, &debug));
		input.debug = debug.elf.len > 0 ? &debug.elf : NULL;
	}
	if (binary.elf.len == 0) {
		TRY(convert_bare(&binary.inside, &input, output));
		return output_done(output);
	}
	TRY(convert_needs(&input, &needs));
	if (needs.build_id.len > 0)
		return output_needs(output, &needs);
	TRY(convert_run(&input, options, output));
	return output_done(output);
}

static struct err *run_package(const struct worker_options *options, struct output *output)
{
	CLEANUP(image_unmap) struct image package = {0};
	CLEANUP(image_unmap) struct image supplement = {0};
	CLEANUP(image_unmap) struct image sibling = {0};
	CLEANUP(image_unmap) struct image list = {0};
	struct package_input input = {.package = &package};
	struct protocol_needs needs = {0};

	TRY(image_map(options->package_fd, "package", &package));
	if (options->supplement_fd >= 0) {
		TRY(image_map(options->supplement_fd, "supplement", &supplement));
		input.supplement = &supplement;
	}
	if (options->sibling_fd >= 0) {
		TRY(image_map(options->sibling_fd, "sibling package", &sibling));
		input.sibling = &sibling;
	}
	if (options->wanted_fd >= 0) {
		TRY(image_map(options->wanted_fd, "wanted", &list));
		input.wanted = &list;
	}
	TRY(package_run(&input, options, output, &needs));
	return needs.build_id.len > 0 ? output_needs(output, &needs) : output_done(output);
}

static struct err *run(const struct worker_options *options, struct output *output)
{
	TRY(enter(options));
	return options->mode == WORKER_ELF ? run_elf(options, output) : run_package(options, output);
}

int main(int argc, char **argv)
{
	struct worker_options options;
	struct output output;
	CLEANUP(err_freep) struct err *e = worker_options_parse(argc, argv, &options);

	if (e) {
		(void)fprintf(stderr, "cairn-worker: %s\n", err_message(e));
		return EXIT_USAGE;
	}
	e = output_init(&output, PROTOCOL_FD_OUTPUT);
	if (!e) {
		e = run(&options, &output);
		if (e)
			output_failed(&output, e, options.memory_bytes);
	}
	output_deinit(&output);
	return e ? EXIT_FAILURE : EXIT_SUCCESS;
}
