// SPDX-License-Identifier: Apache-2.0
/* What a frame of a sample is: which file it is in, where in it, and its name where that is known here. */
#ifndef CAIRN_AGENT_PLACE_H
#define CAIRN_AGENT_PLACE_H

#include "agent/kernel.h"
#include "agent/shared.h"
#include "agent/tables.h"

/* In a frame's place of an executable: code without a file (jit.h), tables_runtime << 32 | number of its name. */
enum { PLACE_CODE_EXE = 0xfffe };

struct place {
	bool in_kernel;
	bool is_code;			    /* without a file, and named or marked */
	enum tables_runtime runtime;	    /* that made it */
	const struct tables_exe *exe;	    /* of user code; NULL: not in a file */
	uint32_t exe_number;
	const struct kernel_module *module; /* of kernel code; NULL: not known */
	uint64_t address;		    /* as linked; in the kernel from the module's start; else as it ran */
	const char *function;		    /* NULL: the server's to find */
};

/** @p frame as in a record (agent/unwind/types.h), or a kernel address that has been made one of a call. Borrowed texts. */
static inline struct place place_of_frame(const struct tables *tables, const struct kernel *kernel, uint64_t frame, bool in_kernel)
{
	struct place place = {.in_kernel = in_kernel, .address = frame};

	if (in_kernel) {
		if (kernel_lookup(kernel, frame, &place.function, &place.module))
			place.address -= place.module->start;
		return place;
	}
	place.exe_number = (uint32_t)(frame >> UNWIND_FRAME_EXE_SHIFT);
	if (place.exe_number == PLACE_CODE_EXE) {
		place.is_code = true;
		place.runtime = (enum tables_runtime)(frame >> 32 & 0xffff);
		place.function = tables_code_name(tables, (uint32_t)frame);
		place.exe_number = 0;
		place.address = 0;
		return place;
	}
	place.exe = tables_exe(tables, place.exe_number);
	place.address = frame & UNWIND_FRAME_ADDRESS_MASK;
	return place;
}

/** Frame @p i, leaf first, of a record: kernel frames come first. All but the leaf of the kernel part are return addresses. */
static inline uint64_t place_raw(const struct sample_head *head, const uint64_t *frames, uint32_t i, bool *in_kernel_ret)
{
	*in_kernel_ret = i < head->kernel_count;
	return *in_kernel_ret ? frames[head->frame_count + i] - (i > 0) : frames[i - head->kernel_count];
}

/** Frames of a record; 0 for one that cannot be. */
static inline uint32_t place_depth(const struct sample_head *head)
{
	if (head->frame_count > UNWIND_FRAMES_MAX || head->kernel_count > SAMPLE_KERNEL_MAX)
		return 0;
	return (uint32_t)head->frame_count + head->kernel_count;
}

#endif
