// SPDX-License-Identifier: Apache-2.0
/*
 * Records read back from the store are hostile. Input: type u8, key length u8, key, value. What decodes must encode to the
 * same bytes: a record has one encoding.
 */
#include "store/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static union {
	struct store_file file;
	struct entry_set set;
	struct store_job job;
	struct store_upload upload;
	struct blob_record blob;
	struct store_miss miss;
} record;
static uint8_t bytes[SET_RECORD_MAX];

static struct err *decode(unsigned type, const MDB_val *key, const MDB_val *value, size_t *len_ret)
{
	struct err *e = NULL;

	switch (type % 6) {
	case 0:
		e = file_decode(key, value, &record.file);
		*len_ret = e ? 0 : file_encode(&record.file, bytes);
		break;
	case 1:
		e = set_decode(key, value, &record.set);
		*len_ret = e ? 0 : set_encode(&record.set, bytes);
		break;
	case 2:
		e = job_decode(key, value, &record.job);
		*len_ret = e ? 0 : job_encode(&record.job, bytes);
		break;
	case 3:
		e = upload_decode(key, value, &record.upload);
		*len_ret = e ? 0 : upload_encode(&record.upload, bytes);
		break;
	case 4:
		e = blob_decode(key, value, &record.blob);
		*len_ret = e ? 0 : blob_encode(&record.blob, bytes);
		break;
	default:
		e = miss_decode(key, value, &record.miss);
		*len_ret = value->mv_size;
		memcpy(bytes, value->mv_data, e ? 0 : value->mv_size);
		break;
	}
	return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len = 0;

	if (size < 2 || data[1] > size - 2)
		return 0;
	MDB_val key = {.mv_size = data[1], .mv_data = (void *)(uintptr_t)(data + 2)};
	MDB_val value = {.mv_size = size - 2 - data[1], .mv_data = (void *)(uintptr_t)(data + 2 + data[1])};
	struct err *e = decode(data[0], &key, &value, &len);
	if (e && err_code(e) != ERR_CORRUPT)
		abort();
	if (!e && (len != value.mv_size || memcmp(bytes, value.mv_data, len) != 0))
		abort();
	err_free(e);
	return 0;
}
