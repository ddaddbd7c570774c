// SPDX-License-Identifier: Apache-2.0
/*
 * Samples that the kernel half could not finish, since it did not know the process or a mapping of it yet, or has no unwind table
 * of the executable: it sends its state and a copy of the stack, and the same unwinder goes on here, with what is known now. A
 * table that is missing is asked for, and the sample waits for it. One thread.
 */
#ifndef CAIRN_AGENT_RESUME_H
#define CAIRN_AGENT_RESUME_H

#include "agent/shared.h"
#include "agent/tables.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	RESUME_WAIT_MS = 3000,		  /* for tables; then the sample goes on as it is */
	RESUME_WAITING_BYTES = 8 << 20,	  /* of samples that wait; more do not wait */
	RESUME_GONE_MAX = 256,		  /* processes that are gone, of which samples wait */
	RESUME_WAITING_MAPPINGS = 1024,	  /* of a sample that waits: they are kept, since its process may end meanwhile */
};

struct resume_counters {
	uint64_t taken;		    /* samples that were cut, and are done */
	uint64_t waiting;	    /* now */
	uint64_t late, full;	    /* that waited in vain; that could not wait */
	uint64_t ends[UNWIND_ENDS]; /* how they ended after all */
	uint64_t before[UNWIND_ENDS]; /* as what the kernel half counted them */
};

struct resume;
struct err *resume_create(struct tables *tables, const struct tables_arrays *arrays, struct resume **ret) MUST_USE;
void resume_destroy(struct resume *resume);
/**
 * Carries on one sample with cut_bytes. A process that is not known is read now.
 * @param head, frames  as sampler_handler.sample has them
 * @param now_ms    CLOCK_MONOTONIC
 * @param head_ret, frames_ret  the sample as it is now, without cut_bytes; until the next call. NULL: it waits for a table
 * @return NULL; ERR_NOMEM
 */
struct err *resume_sample(struct resume *resume, const struct sample_head *head, const uint64_t *frames, uint64_t now_ms,
	const struct sample_head **head_ret, const uint64_t **frames_ret) MUST_USE;
/** A sample that nobody asked for: its stack is not counted. */
void resume_skip(struct resume *resume, const struct sample_head *head);
/**
 * The next sample that waited and is done, as resume_sample gives it; false: no more now. After tables_work.
 * @param give_up  none waits any longer
 */
bool resume_next(struct resume *resume, uint64_t now_ms, bool give_up, const struct sample_head **head_ret, const uint64_t **frames_ret);
/**
 * A process is gone. True: samples of it wait, and what is known of it goes with them: resume_released tells when. False: none
 * does, or there are too many such processes.
 */
bool resume_keep(struct resume *resume, uint32_t pid);
/** The next process that was kept and of which no sample waits any more; or @p reused, whose number has begun to be another. */
bool resume_released(struct resume *resume, uint32_t reused, uint32_t *pid_ret);
void resume_counters(const struct resume *resume, struct resume_counters *ret);

#endif
