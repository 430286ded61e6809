from app.engine.environment import child_environment


def test_the_child_gets_no_secret_of_ours():
    secrets = (
        "HF_TOKEN CLEARML_API_SECRET_KEY TRAINS_X LLAMA_ARG_CTX_SIZE LLAMA_API_KEY AIP_MODE "
        "LD_SECRET CUDA_KEY AWS_ACCESS_KEY_ID GGML_CUDA_ENABLE_UNIFIED_MEMORY MY_TOKEN PASSWORD "
        "NVIDIA_PASSPHRASE ONEAPI_CREDENTIALS"
    ).split()
    kept = (
        "PATH LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES NVIDIA_X OMP_NUM_THREADS https_proxy TZ "
        "HIP_VISIBLE_DEVICES GGML_VK_VISIBLE_DEVICES VK_DRIVER_FILES HSA_OVERRIDE_GFX_VERSION"
    ).split()
    found = child_environment(dict.fromkeys([*secrets, *kept], "theirs"), "/home", "child")
    assert {name for name, value in found.items() if value == "theirs"} == set(kept)
    assert found["LLAMA_API_KEY"] == "child"
    assert found["HOME"] == found["XDG_CONFIG_HOME"] == "/home"
    assert found["LLAMA_SERVER_ROUTER_PORT"] == "0"
