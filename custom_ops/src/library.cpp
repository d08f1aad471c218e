#include "hccs/library.h"

#include <list>
#include <mutex>
#include <string>

#include "hccs/dispatch.h"
#include "op.h"
#include "status.h"

namespace hccs {
namespace {

// Left in session options that have the domain: ONNX Runtime refuses a second one of the same name, and only when the
// session is created.
constexpr const char* kRegistered = "hccs_onnx_ops.registered";

// The domain with its ops, made once for each ONNX Runtime in the process and kept as long as the library is loaded:
// session options and sessions hold pointers into it.
class Domain {
 public:
  explicit Domain(const ort::Api& api) : api_(api) { make_ops(api, ops_); }
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;
  ~Domain() {
    if (domain_ != nullptr) api_.ReleaseCustomOpDomain(domain_);
  }

  OrtStatus* add_to(OrtSessionOptions* options) {
    int registered = 0;
    if (OrtStatus* status = api_.HasSessionConfigEntry(options, kRegistered, &registered)) return status;
    if (registered != 0) return nullptr;
    if (domain_ == nullptr) {
      OrtCustomOpDomain* domain = nullptr;
      if (OrtStatus* status = api_.CreateCustomOpDomain(kDomain, &domain)) return status;
      for (const Op& op : ops_) {
        if (OrtStatus* status = api_.CustomOpDomain_Add(domain, &op)) {
          api_.ReleaseCustomOpDomain(domain);
          return status;
        }
      }
      domain_ = domain;
    }
    if (OrtStatus* status = api_.AddCustomOpDomain(options, domain_)) return status;
    return api_.AddSessionConfigEntry(options, kRegistered, "1");
  }

  const ort::Api& api() const { return api_; }

 private:
  const ort::Api& api_;
  Op ops_[kOpCount];
  OrtCustomOpDomain* domain_ = nullptr;
};

OrtStatus* add_domain(const ort::Api& api, OrtSessionOptions* options) {
  static std::mutex mutex;
  static std::list<Domain> domains;
  const std::lock_guard<std::mutex> lock(mutex);
  for (Domain& domain : domains) {
    if (&domain.api() == &api) return domain.add_to(options);
  }
  return domains.emplace_back(api).add_to(options);
}

}  // namespace
}  // namespace hccs

OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const hccs::ort::Api* api = base->GetApi(hccs::ort::kApiVersion);
  if (api == nullptr) {  // statuses are made the same way in every version
    const hccs::ort::Api* oldest = base->GetApi(1);
    return hccs::without_exceptions(*oldest, [=] {
      return hccs::failure(
          *oldest, "hccs_onnx_ops",
          "this ONNX Runtime is too old (" + std::string(base->GetVersionString()) + ", needs >= 1.17)",
          "Upgrade onnxruntime, or run the model without this library: its function body needs none");
    });
  }
  return hccs::without_exceptions(*api, [=] { return hccs::add_domain(*api, options); });
}

size_t hccs_kernel_count(void) {
  return hccs::kernel_count();
}

const char* hccs_kernel_name(size_t index) {
  const hccs::Kernels* kernels = hccs::kernels_at(index);
  return kernels == nullptr ? nullptr : kernels->name;
}

int hccs_kernel_runs_here(size_t index) {
  const hccs::Kernels* kernels = hccs::kernels_at(index);
  return kernels != nullptr && kernels->runs_here() ? 1 : 0;
}

const char* hccs_selected_kernel(void) {
  const hccs::Kernels* kernels = hccs::select_kernels();
  return kernels == nullptr ? nullptr : kernels->name;
}

unsigned hccs_minimum_ort_api(void) {
  return hccs::ort::kApiVersion;
}
