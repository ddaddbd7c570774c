// SPDX-License-Identifier: Apache-2.0
/*
 * Samples that the kernel half could not finish, since it did not know the process or a mapping of it yet: it sends its state
 * and a copy of the stack, and the same unwinder goes on here, with what is known now. One thread.
 */
#ifndef CAIRN_AGENT_RESUME_H
#define CAIRN_AGENT_RESUME_H

#include "agent/shared.h"
#include "agent/tables.h"
#include "base/err.h"

#include <stdint.h>

struct resume_counters {
	uint64_t taken;		    /* samples that were cut */
	uint64_t ends[UNWIND_ENDS]; /* how they ended after all */
	uint64_t before[UNWIND_ENDS]; /* as what the kernel half counted them */
};

struct resume;
struct err *resume_create(struct tables *tables, const struct tables_arrays *arrays, struct resume **ret) MUST_USE;
void resume_destroy(struct resume *resume);
/**
 * Carries on one sample with cut_bytes. A process that is not known is read now.
 * @param head, frames  as sampler_handler.sample has them
 * @param head_ret, frames_ret  the sample as it is now, without cut_bytes; until the next call
 * @return NULL; ERR_NOMEM
 */
struct err *resume_sample(struct resume *resume, const struct sample_head *head, const uint64_t *frames, const struct sample_head **head_ret,
	const uint64_t **frames_ret) MUST_USE;
void resume_counters(const struct resume *resume, struct resume_counters *ret);

#endif
