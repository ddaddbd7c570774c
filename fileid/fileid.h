// SPDX-License-Identifier: Apache-2.0
/*
 * File IDs: the 128-bit name by which profilers know an executable, and its text forms.
 *     SHA256(first min(4096,n) bytes || last min(4096,n) bytes || n as big-endian u64)[0..16]
 * Source: the OpenTelemetry eBPF profiler's file ID ("htlhash"). For files under 8192 bytes head and tail overlap.
 */
#ifndef CAIRN_FILEID_FILEID_H
#define CAIRN_FILEID_FILEID_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	FILEID_BYTES = 16,
	FILEID_HEX_SIZE = 33,	    /* 32 digits and a NUL */
	FILEID_BASE64URL_SIZE = 23, /* 22 characters and a NUL */
	FILEID_SAMPLE_BYTES = 4096, /* of head and of tail */
};

struct fileid {
	uint8_t bytes[FILEID_BYTES];
};

/** Of an open regular file; its offset is not moved (pread). ERR_OS; ERR_FORMAT when it shrinks meanwhile. Any thread. */
struct err *fileid_from_fd(int fd, struct fileid *ret) MUST_USE;
/** Of a file by path. ERR_OS; ERR_INVALID when it is no regular file. */
struct err *fileid_from_path(const char *path, struct fileid *ret) MUST_USE;
/** Of @p len bytes in memory (a vDSO image, an archive member). */
struct err *fileid_from_memory(const void *bytes, size_t len, struct fileid *ret) MUST_USE;

/**
 * Of a kernel or a kernel module, from its GNU build ID: FNV-1a 128 over the build ID's lower hex digits. A build ID
 * under 8 bytes gives the "unknown kernel" ID fffffffffffffffd twice.
 */
struct fileid fileid_from_kernel_build_id(const uint8_t *build_id, size_t len);
/** The ID of a kernel's debug file: the 64-bit halves swapped. */
struct fileid fileid_swap_halves(const struct fileid *id);

bool fileid_equal(const struct fileid *a, const struct fileid *b);
/** 32 lower hex digits. */
void fileid_format_hex(const struct fileid *id, char text[FILEID_HEX_SIZE]);
/** RFC 4648 base64url without padding. */
void fileid_format_base64url(const struct fileid *id, char text[FILEID_BASE64URL_SIZE]);
/** 32 hex digits (either case) or 22 base64url characters (spare bits must be 0); false for anything else. */
bool fileid_parse(const char *text, size_t len, struct fileid *ret);

#endif
