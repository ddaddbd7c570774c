// SPDX-License-Identifier: Apache-2.0
#include "api/metrics.h"

#include <criterion/criterion.h>
#include <string.h>

static bool has_line(const struct buf *out, const char *line)
{
	const char *found = memmem(out->data, out->len, line, strlen(line));

	return found && found[strlen(line)] == '\n';
}

Test(metrics, counts_by_path_and_status_with_a_cumulative_histogram)
{
	struct api_metrics *metrics = calloc(1, sizeof(*metrics));
	struct buf out = {0};
	struct metrics_page page = {.out = &out};
	api_metrics_request(metrics, API_PATH_SYMBOLIZE, 200, 90000);
	api_metrics_request(metrics, API_PATH_SYMBOLIZE, 200, 3000000);
	api_metrics_request(metrics, API_PATH_SYMBOLIZE, 0, 120000000000);
	api_metrics_request(metrics, API_PATH_SYMBOLIZE, 418, 90000);

	api_metrics_write(metrics, &page);
	cr_assert_null(page.failed);
	cr_assert_null(buf_append(&out, "", 1));
	cr_assert(has_line(&out, "cairn_http_requests_total{path=\"/v1/symbolize\",status=\"200\"} 2"));
	cr_assert(has_line(&out, "cairn_http_requests_total{path=\"/v1/symbolize\",status=\"aborted\"} 1"));
	cr_assert(has_line(&out, "cairn_http_requests_total{path=\"/v1/symbolize\",status=\"other\"} 1"));
	cr_assert(has_line(&out, "cairn_http_request_seconds_bucket{path=\"/v1/symbolize\",le=\"0.0001\"} 2"));
	cr_assert(has_line(&out, "cairn_http_request_seconds_bucket{path=\"/v1/symbolize\",le=\"0.005\"} 3"));
	cr_assert(has_line(&out, "cairn_http_request_seconds_bucket{path=\"/v1/symbolize\",le=\"60\"} 3"));
	cr_assert(has_line(&out, "cairn_http_request_seconds_bucket{path=\"/v1/symbolize\",le=\"+Inf\"} 4"));
	cr_assert(has_line(&out, "cairn_http_request_seconds_sum{path=\"/v1/symbolize\"} 120.003180000"));
	cr_assert(has_line(&out, "cairn_http_request_seconds_count{path=\"/v1/symbolize\"} 4"));
	buf_deinit(&out);
	free(metrics);
}

Test(metrics, counts_outcomes)
{
	struct api_metrics *metrics = calloc(1, sizeof(*metrics));
	struct buf out = {0};
	struct metrics_page page = {.out = &out};
	struct api_symbolize_counts counts = {.results = {5, 6, 7}, .addresses_without_module = 8, .frames = 9};
	counts.modules[API_MODULE_PENDING] = 3;

	api_metrics_symbolize(metrics, &counts);
	api_metrics_write(metrics, &page);
	metrics_process_write(&page);
	cr_assert_null(page.failed);
	cr_assert(has_line(&out, "cairn_symbolize_addresses_total{outcome=\"ok\"} 5"));
	cr_assert(has_line(&out, "cairn_symbolize_addresses_total{outcome=\"no_symbol\"} 6"));
	cr_assert(has_line(&out, "cairn_symbolize_addresses_total{outcome=\"out_of_range\"} 7"));
	cr_assert(has_line(&out, "cairn_symbolize_addresses_total{outcome=\"no_module\"} 8"));
	cr_assert(has_line(&out, "cairn_symbolize_modules_total{status=\"pending\"} 3"));
	cr_assert(has_line(&out, "cairn_build_info{version=\"" CAIRN_VERSION "\"} 1"));
	cr_assert_not_null(memmem(out.data, out.len, "\nprocess_resident_memory_bytes ", 31));
	buf_deinit(&out);
	free(metrics);
}
