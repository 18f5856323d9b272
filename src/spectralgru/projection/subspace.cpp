// What subspace.py and clip.py do and explain, for several matrices at once, each in one thread: PyTorch spends as long
// between small operations as in them.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "../recurrent/parallel.h"
#include "lapack.h"

namespace {

typedef std::vector<float> Numbers;

constexpr int SWEEPS = 4;

// The constants of subspace.py.
struct Constants {
    double coupling, error, narrowest, strongest, tracking, lowest_edge, again, furthest;
    int degrees[SWEEPS], tracking_degree, tracking_sweeps;
};

// At most `number` singular values are above `level`; a negative number: nothing is known.
struct Above {
    long number;
    double level;
};

// A search or, with room for all `values`, a whole decomposition; that one of double if `wide`.
struct Task {
    // Given: weight [n, n]. Given and found: a basis, the `vectors` [k, n]. Found by a decomposition: singular `values`
    // [n], ascending, and their right `vectors` [n, n]. Found: `clipped` [n, n], which a search writes if something was
    // saturated; null: the weight is only tracked.
    const void *weight;
    void *vectors, *values, *clipped;
    long wide, n, k;
    // Given.
    double bound, norm;
    // Given and found.
    double edge;
    Above known;
    // Found; nothing else is if `done` is 0.
    double largest, sigma;
    long saturated, done;
};

class Subspace {
  public:
    Subspace(const Lapack &lapack, const Constants &constants, int n, int k, const float *basis)
        : lapack(lapack), constants(constants), n(n), k(k), basis(basis, basis + n * k), values(k), image(n * k),
          newer(n * k), half(n * k), small(k * k) {}

    // Its products are W^T W from now on.
    void of(const float *matrix) { weight = matrix, gram.clear(); }

    bool has_gram() const { return !gram.empty(); }

    void make_gram() {
        gram.resize(n * n);
        lapack.gram(weight, n, gram.data());
    }

    void find_image() { product(basis, image); }

    // basis: orthonormal rows that span the filtered ones.
    void filter(double edge, int degree, double top) {
        const double steepest = acosh(std::max(2 * top / edge - 1, 1.01));
        degree = std::min(degree, std::max(2, int(acosh(constants.strongest) / steepest)));
        std::swap(older, basis), newer.resize(n * k);
        for (long i = 0; i < n * k; i++) newer[i] = image[i] * float(2 / edge) - older[i];
        for (int step = 1; step < degree; step++) {
            product(newer, image);
            for (long i = 0; i < n * k; i++) older[i] = image[i] * float(4 / edge) - 2 * newer[i] - older[i];
            std::swap(older, newer);
        }
        std::swap(basis, newer), newer.resize(n * k);
        orthonormalize();
    }

    void orthonormalize() {
        const int lwork = 64 * n;
        int info;
        work.resize(lwork), tau.resize(k);
        lapack.sgeqrf(&n, &k, basis.data(), &n, tau.data(), work.data(), &lwork, &info);
        lapack.sorgqr(&n, &k, &k, basis.data(), &n, tau.data(), work.data(), &lwork, &info);
    }

    // Rayleigh-Ritz; false after an overflow.
    bool rotate() {
        lapack.multiply<float>('T', 'N', k, k, n, 1, image.data(), n, basis.data(), n, 0, small.data(), k);
        float sum = 0;
        for (float number : small) sum += number;
        if (!std::isfinite(sum) || !lapack.eigen(k, small.data(), values.data())) return false;
        for (Numbers *vectors : {&basis, &image}) {
            lapack.multiply<float>('N', 'N', n, k, k, 1, vectors->data(), n, small.data(), k, 0, newer.data(), n);
            std::swap(*vectors, newer);
        }
        return true;
    }

    // |A u - theta u|^2 of one pair.
    double residual(int i, float theta) const {
        float sum = 0;
        for (int j = 0; j < n; j++) {
            const float difference = image[i * n + j] - theta * basis[i * n + j];
            sum += difference * difference;
        }
        return sum;
    }

    // Whether a Cholesky factorisation proves the claim.
    bool holds(Above claim) {
        const int number = claim.number, first = k - number;
        const float *top = basis.data() + first * n;
        Numbers deflated(gram), scaled(top, top + number * n);
        for (int i = 0; i < number; i++)
            for (int j = 0; j < n; j++) scaled[i * n + j] *= values[first + i];
        if (number)
            lapack.multiply<float>('N', 'T', n, n, number, 1, scaled.data(), n, top, n, -1, deflated.data(), n);
        else
            for (float &number : deflated) number = -number;
        for (int i = 0; i < n; i++) deflated[i * n + i] += float(claim.level * claim.level);
        int info;
        lapack.spotrf("L", &n, deflated.data(), &n, &info);
        return info == 0;
    }

    // See `Lapack::clip`, by the last `saturated` pairs.
    void clip(int saturated, double bound, float *clipped) const {
        Numbers sigma(saturated);
        for (int i = 0; i < saturated; i++) sigma[i] = sqrtf(values[k - saturated + i]);
        const float *top = basis.data() + (k - saturated) * n;
        lapack.clip(weight, n, saturated, top, sigma.data(), bound, clipped);
    }

    // `track`: sigma_1, or NaN after an overflow.
    double track() {
        long longest = 0;
        float most = -1;
        for (long i = 0; i < n; i++) {
            float sum = 0;
            for (long j = 0; j < n; j++) sum += weight[i * n + j] * weight[i * n + j];
            if (sum > most) longest = i, most = sum;
        }
        memcpy(basis.data(), weight + longest * n, n * sizeof(float));
        orthonormalize();
        double top = 0;
        for (int sweep = 0; sweep < constants.tracking_sweeps; sweep++) {
            find_image();
            if (!rotate()) return NAN;
            top = std::max<double>(values[k - 1], 0);
            if (sqrt(residual(k - 1, top)) <= constants.tracking * top) break;
            filter(std::max<double>(values[0], constants.lowest_edge * top), constants.tracking_degree, top);
        }
        return sqrt(top);
    }

    const Lapack &lapack;
    const Constants &constants;
    const int n, k;
    Numbers basis, values;  // of the pairs, in ascending order

  private:
    void product(const Numbers &rows, Numbers &out) {
        if (has_gram()) {
            lapack.multiply<float>('N', 'N', n, k, n, 1, gram.data(), n, rows.data(), n, 0, out.data(), n);
            return;
        }
        lapack.multiply<float>('T', 'N', n, k, n, 1, weight, n, rows.data(), n, 0, half.data(), n);
        lapack.multiply<float>('N', 'N', n, k, n, 1, weight, n, half.data(), n, 0, out.data(), n);
    }

    const float *weight = nullptr;
    Numbers image, newer, older, half, small, gram, work, tau;
};

// `_split`: where to cut the spectrum `theta` (descending).
Above split(const std::vector<double> &theta, const std::vector<double> &errors, long saturated, double squared,
            Above known, const Constants &constants) {
    const long k = theta.size();
    if (known.number >= 0) {
        const double e = sqrt(errors[std::min(known.number, k)]), level = known.level * known.level + e;
        const bool inside = saturated <= known.number && known.number < k &&
                            (known.number == 0 || theta[known.number - 1] > level);
        if (inside && level < squared && e * e <= constants.coupling * squared * (squared - level))
            return {known.number, sqrt(level)};
        return {-1, 0};
    }
    Above best{-1, 0};
    double widest = constants.narrowest * squared;
    for (long count = saturated; count < k; count++) {
        const double gap = (count == saturated ? squared : theta[count - 1]) - theta[count];
        const double level = theta[count] + gap / 2;
        if (gap > widest && errors[count] <= constants.coupling * squared * (squared - level))
            best = {count, sqrt(std::max(level, 0.0))}, widest = gap;
    }
    return best;
}

// `clip_few` of a matrix; false where it returns None.
bool clip_few(Subspace &space, const float *weight, Task &found) {
    const Constants &constants = space.constants;
    const double bound = found.bound, squared = bound * bound;
    const int k = space.k;
    Above trusted = found.known.level < bound ? found.known : Above{-1, 0}, proven{-1, 0};
    std::vector<double> theta(k), errors(k + 1);
    space.of(weight);
    if (trusted.number < 0) space.make_gram();
    space.find_image();
    theta[0] = found.edge;
    for (int sweep = found.edge ? 0 : -1; proven.number < 0; sweep++) {
        if (sweep == SWEEPS) return false;
        if (sweep >= 0) {
            space.filter(found.edge, constants.degrees[sweep], theta[0]);
            space.find_image();
        }
        if (!space.rotate()) return false;
        for (int i = 0; i < k; i++) {
            theta[i] = space.values[k - 1 - i];
            errors[i + 1] = errors[i] + space.residual(k - 1 - i, space.values[k - 1 - i]);
        }
        if (theta[0] > constants.furthest * constants.furthest * squared) return false;
        found.edge = std::max(std::min(theta[k - 1], squared), 1e-12 * squared);
        found.saturated = std::count_if(theta.begin(), theta.end(), [&](double t) { return t > squared; });
        if (found.saturated == k) return false;
        if (errors[found.saturated] <= pow(constants.error * bound * found.norm, 2)) {
            proven = split(theta, errors, found.saturated, squared, trusted, constants);
            if (proven.number >= 0 && space.has_gram() && !space.holds(proven)) proven.number = -1;
        }
        if (proven.number < 0 && sweep >= 0 && !space.has_gram()) trusted.number = -1, space.make_gram();
    }
    found.known = proven;
    if (!found.saturated) {
        found.largest = sqrt(std::max(theta[0], proven.level * proven.level) + sqrt(errors[k]));
        found.sigma = errors[1] <= pow(constants.tracking * theta[0], 2) ? sqrt(theta[0]) : NAN;
        return true;
    }
    found.largest = bound * (1 + constants.coupling), found.sigma = bound;
    float *clipped = static_cast<float *>(found.clipped);
    space.clip(found.saturated, bound, clipped);
    if (theta[0] <= constants.again * constants.again * squared) return true;
    Numbers first(clipped, clipped + space.n * space.n);
    const long saturated = found.saturated;
    found.known.level += 1e-6 * sqrt(theta[0]), found.edge = 0;
    if (!clip_few(space, first.data(), found)) return false;
    found.saturated = saturated;
    return true;
}

void search(const Lapack &lapack, const Constants &constants, Task &task) {
    const float *weight = static_cast<const float *>(task.weight);
    float *basis = static_cast<float *>(task.vectors);
    Subspace space(lapack, constants, task.n, task.k, basis);
    task.done = 1, task.saturated = 0, task.sigma = NAN;
    if (task.clipped) task.done = clip_few(space, weight, task);
    else space.of(weight);
    if (task.done && !task.saturated && std::isnan(task.sigma)) {
        task.sigma = space.track();
        task.done = !std::isnan(task.sigma);
    }
    std::copy(space.basis.begin(), space.basis.end(), basis);
}

template <class Real> void decompose(const Lapack &lapack, Task &task) {
    const Real *weight = static_cast<const Real *>(task.weight);
    Real *vectors = static_cast<Real *>(task.vectors), *sigma = static_cast<Real *>(task.values);
    const long n = task.n;
    lapack.gram(weight, n, vectors);
    task.done = lapack.eigen(n, vectors, sigma);
    for (long i = 0; i < n; i++) sigma[i] = sqrt(std::max<Real>(sigma[i], 0));
    task.saturated = std::count_if(sigma, sigma + n, [&](Real one) { return one > Real(task.bound); });
    const long below = n - task.saturated;
    lapack.clip(weight, n, task.saturated, vectors + below * n, sigma + below, task.bound,
                static_cast<Real *>(task.clipped));
}

}  // namespace

extern "C" {

// Each task in one thread. Two would come to other bits, and MKL would wait for ever for those it is not given here.
void project(Pool pool, const Lapack *lapack, const Constants *constants, long count, Task *tasks) {
    divide(pool, count, [&](long i) {
        const int before = lapack->set_threads(1);
        if (!tasks[i].values) search(*lapack, *constants, tasks[i]);
        else if (tasks[i].wide) decompose<double>(*lapack, tasks[i]);
        else decompose<float>(*lapack, tasks[i]);
        lapack->set_threads(before);
    });
}
}
