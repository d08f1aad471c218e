// ONNX Runtime statuses with messages in the project's wording.
#pragma once

#include <exception>
#include <string>

#include "hccs/ort_abi.h"

namespace hccs {

// What the user can do about parameters that do not fit the model.
constexpr const char* kRecalibrate = "Calibrate again for this model or correct the attribute";

// Status that reads "<subject>: <problem>. <remedy>."; `problem` names what was found and what is needed.
inline OrtStatus* failure(const ort::Api& api, const std::string& subject, const std::string& problem,
                          const std::string& remedy) {
  return api.CreateStatus(ort::kInvalidArgument, (subject + ": " + problem + ". " + remedy + ".").c_str());
}

// Whether a call failed; its status is released.
inline bool failed(const ort::Api& api, OrtStatus* status) {
  if (status == nullptr) return false;
  api.ReleaseStatus(status);
  return true;
}

// Runs `body`, which returns a status, and turns exceptions into statuses: none may leave the library.
template <class Body>
OrtStatus* without_exceptions(const ort::Api& api, Body body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    return api.CreateStatus(ort::kFail, error.what());
  } catch (...) {
    return api.CreateStatus(ort::kFail, "hccs: unknown C++ exception");
  }
}

}  // namespace hccs
