// SPDX-License-Identifier: Apache-2.0
/*
 * Kernels and modules as they lie on disks: packed. What is inside is an ELF file, or the bare code of one that had its headers
 * taken away (arm64, RISC-V), in which the build ID can still be found.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_KERNEL_IMAGE_H
#define CAIRN_SYMBOLIZER_BUILD_KERNEL_IMAGE_H

#include "base/buf.h"
#include "base/codec.h"
#include "fileid/build_id.h"

#include <stdbool.h>

enum {
	KERNEL_IMAGE_BYTES_MAX = 1 << 30,   /* unpacked. A vmlinux without debug information has some 60 MB, the largest module with it 400 */
	KERNEL_IMAGE_RATIO_MAX = 200,	    /* bytes unpacked per packed byte .. */
	KERNEL_IMAGE_RATIO_FROM = 64 << 20, /* .. once so many were unpacked */
};

enum kernel_image_form {
	KERNEL_IMAGE_NONE,    /* not packed (an ELF file, say), or nothing that is known here */
	KERNEL_IMAGE_BZIMAGE, /* x86: vmlinuz */
	KERNEL_IMAGE_ZBOOT,   /* a packed image with an EFI loader: vmlinuz.efi */
	KERNEL_IMAGE_STREAM,  /* all of the file in one codec: .ko.xz, vmlinux.xz, Image.gz */
	KERNEL_IMAGE_BARE,    /* arm64, RISC-V: Image */
};

/** By its first bytes: 1 KiB of the file is enough. Any compressed file is a KERNEL_IMAGE_STREAM. Any thread. */
enum kernel_image_form kernel_image_detect(const void *bytes, size_t len);

/** Whether a path is called as kernels and modules are, packed ones too: other compressed files need not be looked into. Any thread. */
bool kernel_image_is_named(const char *path);

struct kernel_image {
	struct buf elf; /* the ELF file that was inside; empty: there was a bare image, and what follows is all that is known of it */
	uint16_t elf_machine;
	struct build_id build_id;
};

/**
 * Unpacks one layer of @p bytes, of any form but KERNEL_IMAGE_NONE; a bare image may lie in a stream or in zboot.
 * @param name   what the bytes are, for errors
 * @param limit  bytes unpacked; at most KERNEL_IMAGE_BYTES_MAX and the ratio above hold in any case
 * @param ret    the caller's; kernel_image_deinit
 * @return NULL; ERR_FORMAT: damaged, truncated, sizes that do not agree, neither ELF nor a bare image inside; ERR_LIMIT: past a
 *         limit; ERR_UNSUPPORTED: a compression that is not read (bzip2, lzo), or a bare image whose build ID cannot be told;
 *         ERR_NOMEM. Any thread. Source: Linux, Documentation/arch/x86/boot.rst, arch/arm64/booting.rst, arch/riscv/boot-image-header.rst,
 *         drivers/firmware/efi/libstub/zboot-header.S.
 */
struct err *kernel_image_unpack(const void *bytes, size_t len, const char *name, uint64_t limit, struct kernel_image *ret) MUST_USE;
/** For CLEANUP too. */
void kernel_image_deinit(struct kernel_image *image);

#endif
