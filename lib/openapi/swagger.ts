import { Logger } from '@nestjs/common';

/** A schema of OpenAPI, as far as it is written here. */
export interface Schema {
  readonly type?: string;
  readonly $ref?: string;
  readonly description?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly format?: string;
  readonly enum?: readonly unknown[];
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly allOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
}

/** A parameter as swagger's decorators take and keep it. */
export interface Parameter {
  readonly name?: string;
  readonly in?: string;
  readonly required?: boolean;
  readonly description?: string;
  readonly schema?: Schema;
}

/** A response as swagger's decorators take and keep it. */
export interface Response {
  readonly status?: number | string;
  readonly description?: string;
  readonly headers?: Readonly<Record<string, { readonly description: string; readonly schema: Schema }>>;
  readonly content?: Readonly<Record<string, { readonly schema: Schema; readonly examples: object }>>;
}

type Decorator = (target: object, name: string, descriptor: { value: unknown }) => unknown;
type Model = abstract new (...args: never[]) => unknown;

/** The part of `@nestjs/swagger` that is used. Written down here, because the types must do without it as well. */
export interface Swagger {
  readonly ApiBody: (body: { readonly schema: Schema }) => Decorator;
  readonly ApiExtraModels: (...models: Model[]) => Decorator;
  readonly ApiHeader: (header: Parameter) => Decorator;
  readonly ApiResponse: (response: Response) => Decorator;
  readonly getSchemaPath: (model: Model) => string;
}

/** Where swagger's decorators keep what they were told. */
export const SWAGGER_PARAMETERS = 'swagger/apiParameters';
export const SWAGGER_RESPONSES = 'swagger/apiResponse';
/** What the plugin of the Nest CLI adds to a controller: a function that tells the answers of its methods. */
export const PLUGIN_METADATA = '_OPENAPI_METADATA_FACTORY';

/** The package, or undefined where it is not installed. */
export async function loadSwagger(): Promise<Swagger | undefined> {
  try {
    return (await import('@nestjs/swagger')) as unknown as Swagger;
  } catch (error) {
    // Documentation must not keep an application from starting.
    if (!isNotInstalled(error))
      new Logger('Idempotency').warn(`@nestjs/swagger cannot be loaded: ${String(error)}`);
    return undefined;
  }
}

function isNotInstalled(error: unknown): boolean {
  const { code, message } = error as { code?: unknown; message?: unknown };
  const isMissing = code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND';
  return isMissing && String(message).includes("'@nestjs/swagger'");
}
