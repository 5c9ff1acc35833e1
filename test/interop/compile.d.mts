export declare function compileApps(): Promise<void>;
