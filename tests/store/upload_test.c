// SPDX-License-Identifier: Apache-2.0
/* Uploads and the originals that are kept. */
#include "tests/store/suite.h"

static struct store_upload create(const uint8_t *bytes, size_t len, enum store_role role)
{
	struct store_upload upload = {.tenant = 1, .role = role, .name = "libx.so", .size = len, .build_id = build_id_of(7)}, ret;

	MUST(sha256_of(bytes, len, &upload.sha256));
	MUST(store_upload_create(store, &upload, &ret));
	return ret;
}

static struct sha256 keep(uint64_t seed, size_t len, enum store_role role, const struct store_job *job, uint64_t *job_id)
{
	CLEANUP(freep) uint8_t *bytes = table_bytes(seed, len);
	struct store_upload upload = create(bytes, len, role);
	uint64_t offset = 0;

	while (offset < len) {
		size_t n = len - offset < STORE_UPLOAD_CHUNK_MAX ? len - offset : STORE_UPLOAD_CHUNK_MAX;
		MUST(store_upload_chunk(store, upload.id, offset, bytes + offset, n, &offset));
	}
	MUST(store_upload_finish(store, upload.id, job, job_id));
	return upload.sha256;
}

static bool is_kept(const struct sha256 *id, struct store_blob *ret)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_blob blob;
	bool found;

	MUST(store_read_begin(store, &read));
	MUST(store_blob_get(read, id, ret ? ret : &blob, &found));
	return found;
}

static size_t files_in(const char *folder)
{
	char command[160];
	unsigned n = 0;

	(void)snprintf(command, sizeof(command), "ls %s/%s | wc -l", dir, folder);
	FILE *f = popen(command, "r");
	cr_assert(f && fscanf(f, "%u", &n) == 1);
	(void)pclose(f);
	return n;
}

static const struct store_job elf_job = {.tenant = 1, .kind = STORE_JOB_ELF, .source = STORE_SOURCE_UPLOAD};

Test(store_upload, chunks_a_restart_between_and_a_job, .init = setup, .fini = teardown)
{
	enum { LEN = 10 << 20 };
	CLEANUP(freep) uint8_t *bytes = table_bytes(1, LEN);
	struct store_upload upload = create(bytes, LEN, STORE_ROLE_DEBUG), again;
	uint64_t offset, job_id;

	MUST(store_upload_chunk(store, upload.id, 0, bytes, 3000000, &offset));
	cr_assert_eq(offset, 3000000);
	reopen_with((struct store_options){0});
	MUST(store_upload_get(store, upload.id, &again));
	cr_assert_eq(again.offset, 3000000);
	cr_assert_str_eq(again.name, "libx.so");
	for (offset = 3000000; offset < LEN;)
		MUST(store_upload_chunk(store, upload.id, offset, bytes + offset, LEN - offset < (4 << 20) ? LEN - offset : 4 << 20, &offset));
	MUST(store_upload_finish(store, upload.id, &elf_job, &job_id));
	assert_fails(store_upload_get(store, upload.id, &again), ERR_NOT_FOUND, "no such upload");
	cr_assert_eq(files_in("uploads"), 0);

	struct store_job job;
	bool found;
	MUST(store_job_claim(store, &job, &found));
	cr_assert(found);
	cr_assert_eq(job.id, job_id);
	cr_assert_eq(job.input_count, 1);
	cr_assert_eq(job.inputs[0].role, STORE_ROLE_DEBUG);
	struct build_id build = build_id_of(7);
	cr_assert(build_id_equal(&job.build_id, &build));
	int fd;
	MUST(store_blob_open(store, &job.inputs[0].blob, &fd));
	CLEANUP(freep) uint8_t *back = malloc(LEN + 1);
	cr_assert_eq(read(fd, back, LEN + 1), LEN);
	cr_assert_eq(memcmp(back, bytes, LEN), 0);
	cr_assert_eq(write(fd, "x", 1), -1, "a worker only reads it");
	(void)close(fd);
}

Test(store_upload_create, checks_before_bytes, .init = setup, .fini = teardown)
{
	struct store_upload upload = {.tenant = 1, .role = STORE_ROLE_DEBUG}, ret;

	assert_fails(store_upload_create(store, &upload, &ret), ERR_INVALID, "0 bytes");
	reopen_with((struct store_options){.max_upload_bytes = 1000});
	upload.size = 1001;
	assert_fails(store_upload_create(store, &upload, &ret), ERR_LIMIT, "1001 bytes: the limit is 1000");
	reopen_with((struct store_options){.max_upload_bytes = 1ull << 62});
	upload.size = 1ull << 61;
	assert_fails(store_upload_create(store, &upload, &ret), ERR_LIMIT, "the server's disk has no room");
	upload.size = 1000;
	upload.role = 9;
	assert_fails(store_upload_create(store, &upload, &ret), ERR_INVALID, "role");
	upload.role = STORE_ROLE_DEBUG;
	MUST(store_upload_create(store, &upload, &ret));
	cr_assert_eq(files_in("uploads"), 1);
}

Test(store_upload_create, gives_the_open_session_again, .init = setup, .fini = teardown)
{
	uint8_t bytes[100] = {1};
	struct store_upload a = create(bytes, 100, STORE_ROLE_DEBUG), b, c;
	uint64_t offset;

	MUST(store_upload_chunk(store, a.id, 0, bytes, 40, &offset));
	b = create(bytes, 100, STORE_ROLE_DEBUG);
	cr_assert_arr_eq(a.id, b.id, sizeof(a.id));
	cr_assert_eq(b.offset, 40);
	c = create(bytes, 100, STORE_ROLE_RUNTIME);
	cr_assert_arr_neq(a.id, c.id, sizeof(a.id));
	cr_assert_eq(files_in("uploads"), 2);
}

Test(store_upload_chunk, checks_offset_and_size, .init = setup, .fini = teardown)
{
	CLEANUP(freep) uint8_t *bytes = table_bytes(1, 5 << 20);
	struct store_upload upload = create(bytes, 5 << 20, STORE_ROLE_DEBUG), small = create(bytes, 100, STORE_ROLE_DEBUG);
	uint64_t offset = 99;
	uint8_t unknown[16] = {1};

	assert_fails(store_upload_chunk(store, upload.id, 10, bytes, 10, &offset), ERR_MISMATCH, "offset 10: 0 bytes are here");
	cr_assert_eq(offset, 0);
	assert_fails(store_upload_chunk(store, upload.id, 0, bytes, STORE_UPLOAD_CHUNK_MAX + 1, &offset), ERR_LIMIT, "the limit is 4194304");
	assert_fails(store_upload_chunk(store, small.id, 0, bytes, 101, &offset), ERR_LIMIT, "past the announced size of 100");
	assert_fails(store_upload_chunk(store, unknown, 0, bytes, 1, &offset), ERR_NOT_FOUND, "no such upload");
	MUST(store_upload_chunk(store, small.id, 0, bytes, 60, &offset));
	assert_fails(store_upload_chunk(store, small.id, 0, bytes, 60, &offset), ERR_MISMATCH, "60 bytes are here");
	cr_assert_eq(offset, 60);
}

Test(store_upload_finish, wants_all_bytes_and_the_right_ones, .init = setup, .fini = teardown)
{
	CLEANUP(freep) uint8_t *bytes = table_bytes(1, 1000);
	struct store_upload upload = create(bytes, 1000, STORE_ROLE_DEBUG);
	uint64_t offset, job;

	MUST(store_upload_chunk(store, upload.id, 0, bytes, 500, &offset));
	assert_fails(store_upload_finish(store, upload.id, &elf_job, &job), ERR_INVALID, "500 of 1000 bytes are here");
	bytes[700] ^= 1;
	MUST(store_upload_chunk(store, upload.id, 500, bytes + 500, 500, &offset));
	assert_fails(store_upload_finish(store, upload.id, &elf_job, &job), ERR_MISMATCH, "do not have the SHA-256 that was announced");
	assert_fails(store_upload_get(store, upload.id, &upload), ERR_NOT_FOUND, "no such upload");
	cr_assert_not(is_kept(&upload.sha256, NULL));
	cr_assert_eq(files_in("uploads"), 0);
	cr_assert_eq(files_in("blobs"), 0);
}

Test(store_upload_finish, compares_the_file_id_of_a_runtime_file, .init = setup, .fini = teardown)
{
	CLEANUP(freep) uint8_t *bytes = table_bytes(1, 1000);
	struct store_upload upload = {.tenant = 1, .role = STORE_ROLE_RUNTIME, .name = "x", .size = 1000, .has_file_id = true};
	uint64_t offset, id;

	MUST(sha256_of(bytes, 1000, &upload.sha256));
	MUST(store_upload_create(store, &upload, &upload));
	MUST(store_upload_chunk(store, upload.id, 0, bytes, 1000, &offset));
	assert_fails(store_upload_finish(store, upload.id, &elf_job, &id), ERR_MISMATCH, "file ID");
	MUST(fileid_from_memory(bytes, 1000, &upload.file_id));
	MUST(store_upload_create(store, &upload, &upload));
	MUST(store_upload_chunk(store, upload.id, 0, bytes, 1000, &offset));
	MUST(store_upload_finish(store, upload.id, &elf_job, &id));
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct store_query query = {.tenant = 1, .has_file_id = true, .file_id = upload.file_id};
	struct store_job job;
	size_t n;
	MUST(store_read_begin(store, &read));
	MUST(store_jobs_about(read, &query, &job, 1, &n));
	cr_assert_eq(n, 1, "the job is found by the file ID");
}

/* Of a packed kernel, which profilers know by its build ID. */
Test(store_upload_finish, takes_a_kernels_id_for_the_announced_build_id_only, .init = setup, .fini = teardown)
{
	CLEANUP(freep) uint8_t *bytes = table_bytes(1, 1000);
	struct store_upload upload = {.tenant = 1, .role = STORE_ROLE_RUNTIME, .name = "vmlinuz", .size = 1000, .has_file_id = true};
	uint64_t offset, id;

	MUST(sha256_of(bytes, 1000, &upload.sha256));
	upload.file_id = fileid_from_kernel_build_id(build_id_of(5).bytes, 20);
	for (unsigned i = 0; i < 2; i++) {
		upload.build_id = build_id_of(i == 0 ? 6 : 5);
		MUST(store_upload_create(store, &upload, &upload));
		MUST(store_upload_chunk(store, upload.id, 0, bytes, 1000, &offset));
		if (i == 0)
			assert_fails(store_upload_finish(store, upload.id, &elf_job, &id), ERR_MISMATCH, "file ID");
		else
			MUST(store_upload_finish(store, upload.id, &elf_job, &id));
	}
}

Test(store_upload_expire, drops_the_stale_ones_only, .init = setup, .fini = teardown)
{
	uint8_t bytes[100] = {1};
	struct store_upload upload = create(bytes, 100, STORE_ROLE_DEBUG);
	uint64_t dropped;

	MUST(store_upload_expire(store, &dropped));
	cr_assert_eq(dropped, 0);
	reopen_with((struct store_options){.upload_expiry_s = 1});
	usleep(1100000);
	create(bytes, 50, STORE_ROLE_DEBUG);
	MUST(store_upload_expire(store, &dropped));
	cr_assert_eq(dropped, 1);
	assert_fails(store_upload_get(store, upload.id, &upload), ERR_NOT_FOUND, "no such upload");
	cr_assert_eq(files_in("uploads"), 1);
}

Test(store_upload_abort, drops_the_session, .init = setup, .fini = teardown)
{
	uint8_t bytes[100] = {1};
	struct store_upload upload = create(bytes, 100, STORE_ROLE_DEBUG);

	MUST(store_upload_abort(store, upload.id));
	assert_fails(store_upload_abort(store, upload.id), ERR_NOT_FOUND, "no such upload");
	cr_assert_eq(files_in("uploads"), 0);
}

Test(store_open, removes_files_without_records, .init = setup, .fini = teardown)
{
	static const char *const strays[] = {"uploads/00112233445566778899aabbccddeeff", "uploads/tmp.abc", "blobs/new.1",
		"blobs/0011223344556677889900112233445566778899001122334455667788990011.zst"};
	uint8_t bytes[100] = {1};
	struct store_upload upload = create(bytes, 100, STORE_ROLE_DEBUG);
	struct sha256 kept = keep(2, 5000, STORE_ROLE_DEBUG, NULL, NULL);

	for (size_t i = 0; i < ARRAY_SIZE(strays); i++) {
		char path[160];
		(void)snprintf(path, sizeof(path), "%s/%s", dir, strays[i]);
		int fd = open(path, O_CREAT | O_WRONLY, 0600);
		cr_assert_geq(fd, 0);
		(void)close(fd);
	}
	reopen_with((struct store_options){0});
	cr_assert_eq(files_in("uploads"), 1);
	cr_assert_eq(files_in("blobs"), 1);
	cr_assert(is_kept(&kept, NULL));
	MUST(store_upload_get(store, upload.id, &upload));
}

Test(store_blob, quota_takes_the_oldest_that_no_job_needs, .init = setup, .fini = teardown)
{
	struct store_blob blob;
	uint64_t job;

	reopen_with((struct store_options){.blob_quota_bytes = 250000});
	struct sha256 needed = keep(1, 100000, STORE_ROLE_DEBUG, &elf_job, &job);
	usleep(3000);
	struct sha256 old = keep(2, 100000, STORE_ROLE_DEBUG, NULL, NULL);
	usleep(3000);
	struct sha256 new = keep(3, 100000, STORE_ROLE_DEBUG, NULL, NULL);
	cr_assert(is_kept(&needed, &blob));
	cr_assert(blob.in_use);
	cr_assert_not(is_kept(&old, NULL));
	cr_assert(is_kept(&new, &blob));
	cr_assert_not(blob.in_use);
	cr_assert_eq(files_in("blobs"), 2);
	int fd;
	assert_fails(store_blob_open(store, &old, &fd), ERR_NOT_FOUND, "no original");
	/* Once its job is over it goes like the others. */
	struct store_job claimed;
	bool found;
	MUST(store_job_claim(store, &claimed, &found));
	MUST(store_job_finish(store, claimed.id, NULL));
	usleep(3000);
	keep(4, 100000, STORE_ROLE_DEBUG, NULL, NULL);
	cr_assert_not(is_kept(&needed, NULL));
	cr_assert(is_kept(&new, NULL));
}

Test(store_blob_find, gives_the_newest_of_a_role, .init = setup, .fini = teardown)
{
	CLEANUP(store_read_endp) struct store_read *read = NULL;
	struct build_id build = build_id_of(7), other = build_id_of(8), none = {0};
	struct sha256 id;
	bool found;

	keep(1, 1000, STORE_ROLE_RUNTIME, NULL, NULL);
	struct sha256 newest = keep(2, 1000, STORE_ROLE_RUNTIME, NULL, NULL);
	keep(3, 1000, STORE_ROLE_DEBUG, NULL, NULL);
	MUST(store_read_begin(store, &read));
	MUST(store_blob_find(read, 1, &build, STORE_ROLE_RUNTIME, &id, &found));
	cr_assert(found);
	cr_assert_arr_eq(id.bytes, newest.bytes, SHA256_BYTES);
	MUST(store_blob_find(read, 2, &build, STORE_ROLE_RUNTIME, &id, &found));
	cr_assert_not(found);
	MUST(store_blob_find(read, 1, &other, STORE_ROLE_RUNTIME, &id, &found));
	cr_assert_not(found);
	MUST(store_blob_find(read, 1, &none, STORE_ROLE_RUNTIME, &id, &found));
	cr_assert_not(found);
}

Test(store_blob_drop, takes_away_what_no_job_needs, .init = setup, .fini = teardown)
{
	struct store_job job = {.tenant = STORE_TENANT_PUBLIC, .kind = STORE_JOB_PACKAGE, .source = STORE_SOURCE_PACKAGE, .input_count = 1, .name = "a.deb"};
	CLEANUP(closep) int from = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	struct store_blob blob;
	struct sha256 id;
	uint64_t number;
	bool dropped, found;

	cr_assert_eq(write(from, "package", 7), 7);
	MUST(store_blob_put(store, from, "a.deb", &id));
	job.inputs[0] = (struct store_job_input){STORE_ROLE_PACKAGE, id};
	MUST(store_job_submit(store, &job, &number));
	MUST(store_blob_drop(store, &id, &dropped));
	cr_assert_not(dropped, "a queued job needs it");
	MUST(store_job_claim(store, &job, &found));
	MUST(store_job_finish(store, number, NULL));
	MUST(store_blob_drop(store, &id, &dropped));
	cr_assert(dropped);
	struct store_read *read;
	MUST(store_read_begin(store, &read));
	MUST(store_blob_get(read, &id, &blob, &found));
	store_read_end(read);
	cr_assert_not(found);
	struct err *e = store_job_submit(store, &job, &number);
	cr_assert_eq(err_code(e), ERR_NOT_FOUND);
	err_free(e);
}

Test(store_blob_put, keeps_a_file_of_any_size_down_to_none, .init = setup, .fini = teardown)
{
	static const size_t sizes[] = {0, 1, 4 << 20, (4 << 20) + 1};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		CLEANUP(freep) uint8_t *bytes = table_bytes(i + 50, sizes[i]);
		CLEANUP(closep) int from = open("/tmp", O_TMPFILE | O_RDWR, 0600);
		CLEANUP(closep) int to = -1;
		struct sha256 id, expected;
		struct stat stat;
		cr_assert_eq(write(from, bytes, sizes[i]), (ssize_t)sizes[i]);
		MUST(store_blob_put(store, from, "a.deb", &id));
		MUST(sha256_of(bytes, sizes[i], &expected));
		cr_assert_arr_eq(id.bytes, expected.bytes, SHA256_BYTES);
		MUST(store_blob_open(store, &id, &to));
		cr_assert_eq(fstat(to, &stat), 0);
		cr_assert_eq((size_t)stat.st_size, sizes[i]);
	}
}

Test(store_check, finds_a_damaged_or_missing_original)
{
	char path[160], name[SHA256_HEX_SIZE];
	struct check_log log;

	setup();
	struct sha256 id = keep(1, 100000, STORE_ROLE_DEBUG, NULL, NULL);
	sha256_format(&id, name);
	(void)snprintf(path, sizeof(path), "%s/blobs/%s.zst", dir, name);
	cr_assert_eq(faults_of(store, &log, NULL), 0);
	int fd = open(path, O_WRONLY);
	cr_assert_eq(pwrite(fd, "damage", 6, 5000), 6);
	(void)close(fd);
	cr_assert_eq(faults_of(store, &log, NULL), 1);
	cr_assert(strstr(log.first, name), "%s", log.first);
	assert_fails(store_blob_open(store, &id, &fd), ERR_CORRUPT, name);
	(void)unlink(path);
	cr_assert_eq(faults_of(store, &log, NULL), 1);
	cr_assert(strstr(log.first, "is gone"), "%s", log.first);
	store_close(store);
	temp_dir_remove(dir);
}
