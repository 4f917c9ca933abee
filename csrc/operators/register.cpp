// csrc/operators/register.cpp - what onnxruntime calls when the library is registered with a session's
// options.
#include "operators/attention_operator.hpp"
#include "operators/linear_operator.hpp"
#include "operators/routed_mlp_operator.hpp"

namespace {

using namespace sabiyarn;

constexpr const char* kDomain = "sabiyarn";

// One for all sessions, never released: it has to live as long as the last of them.
struct Domain {
  ort::CustomOpDomain* handle = nullptr;
  bool made = false;

  explicit Domain(const ort::Api& api) {
    static const Operator<LinearOperator> linear;
    static const Operator<EmbeddingOperator> embedding;
    static const Operator<ResidualNormOperator> residual_norm;
    static const Operator<AttentionOperator> attention;
    static const Operator<RoutedMlpOperator> routed_mlp;
    ort::Status* status = api.create_domain(kDomain, &handle);
    for (const ort::CustomOp* op :
         {static_cast<const ort::CustomOp*>(&linear), static_cast<const ort::CustomOp*>(&embedding),
          static_cast<const ort::CustomOp*>(&residual_norm), static_cast<const ort::CustomOp*>(&attention),
          static_cast<const ort::CustomOp*>(&routed_mlp)}) {
      if (status == nullptr) status = api.add_operator(handle, op);
    }
    made = status == nullptr;
    if (!made) api.release(status);
  }
};

}  // namespace

extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(ort::SessionOptions* options,
                                                                                 const ort::ApiBase* base) {
  const ort::Api* api = base->get_api(ort::kApiVersion);
  if (api == nullptr) return nullptr;  // onnxruntime has said why on stderr, and will not know the domain
  static const Domain domain(*api);
  if (!domain.made) return api->create_status(ort::kFail, "onnxruntime refuses the operators");
  return api->add_domain(options, domain.handle);
}
