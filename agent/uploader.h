// SPDX-License-Identifier: Apache-2.0
/*
 * Symbols that the server asks for: the files are found through a process that maps them, and sent by upload-symbols (the program, which
 * stands beside this one), one at a time, slowed down to a rate, with their debug files where those are on this machine. Off by
 * default, since binaries are private. What a server asks for is not believed: only files of processes that were sampled are
 * sent, each once, none that is excluded. One thread; nothing here waits.
 */
#ifndef CAIRN_AGENT_UPLOADER_H
#define CAIRN_AGENT_UPLOADER_H

#include "agent/filter.h"
#include "fileid/fileid.h"

enum {
	UPLOADER_WAITING_MAX = 256, /* files; more are passed over, and asked for again on the next connection */
	UPLOADER_ASKED_MAX = 1024, /* wishes looked at between two uploader_work; more are passed over likewise */
	UPLOADER_KNOWN_MAX = 8192,  /* files that were sent or looked for; then all are forgotten */
	UPLOADER_DEADLINE_MS = 3600 * 1000, /* of one file */
};

struct uploader_options {
	const char *url;     /* of cairnd's HTTP */
	const char *exclude; /* patterns with commas, of paths or base names; NULL: none */
	const char *program; /* upload-symbols; NULL: beside this program */
	uint64_t bytes_per_second;
};

struct uploader_counters {
	uint64_t asked, sent, failed;
	uint64_t excluded, not_found; /* not found: no process that has it any more, or the kernel */
	uint64_t dropped;	      /* no room to wait, or too many at once */
};

struct uploader;
/** Texts of @p options are borrowed. ERR_NOMEM; ERR_INVALID: the patterns; ERR_NOT_FOUND: the program. */
struct err *uploader_create(const struct uploader_options *options, struct uploader **ret) MUST_USE;
/** Ends an upload under way: the next run goes on where it stopped. NULL is fine. */
void uploader_destroy(struct uploader *uploader);
/** The server has a wish: whether it is worth looking at. False: too many wait or came at once; counted. */
bool uploader_has_room(struct uploader *uploader);
/** The server would like it, and there was room. @p pid: a process that maps it; 0: none is known. ERR_NOMEM. */
struct err *uploader_want(struct uploader *uploader, const struct fileid *file_id, uint32_t pid) MUST_USE;
/** Sees after the upload under way and begins the next. */
void uploader_work(struct uploader *uploader, uint64_t now_ms);
void uploader_counters(const struct uploader *uploader, struct uploader_counters *ret);

/**
 * Opens the file with that ID among those that @p pid maps; -1: it has none such, or excluded by @p exclude (then *excluded_ret).
 * @param path_ret  its path as the process sees it
 */
int uploader_open(uint32_t pid, const struct fileid *file_id, const struct filter_list *exclude, char path_ret[4096], bool *excluded_ret);

#endif
